#include "pool/node_network.h"

#include <fcntl.h>
#include <spdlog/spdlog.h>

#include <boost/asio/posix/stream_descriptor.hpp>

#include "base/monotonic.h"
#include "net/programs.h"

namespace cube::pool {
namespace {

constexpr char kBpfFolder[] = "/sys/fs/bpf";
// A part of a pass of the reaper, and the time between two passes.
constexpr milliseconds kStep(20);
constexpr milliseconds kPass(2'000);
constexpr size_t kMaxVerdicts = 256;

Result<std::vector<net::Network>> Networks(const std::vector<std::string>& texts, const char* key) {
  std::vector<net::Network> networks;
  for (const std::string& text : texts) {
    auto network = net::ParseNetwork(text);
    if (!network.ok()) return Error(network.error()).Wrap(std::string("network.") + key);
    networks.push_back(*network);
  }
  return networks;
}

}  // namespace

Result<std::unique_ptr<NodeNetwork>> NodeNetwork::Open(asio::io_context& io,
                                                       const NetworkConfig& config) {
  net::FabricOptions options;
  options.uplink = config.uplink;
  options.prefix = config.prefix;
  options.pins = std::string(kBpfFolder) + "/" + config.prefix;
  options.first_port = static_cast<uint16_t>(config.first_port);
  options.last_port = static_cast<uint16_t>(config.last_port);
  options.max_flows = config.max_flows;
  options.ipv6 = config.ipv6;
  std::vector<std::string> exceptions;
  for (const std::string& text : config.exceptions) {
    if (!net::LooksLikeIpv6(text)) {
      exceptions.push_back(text);
      continue;
    }
    auto network = net::ParseNetwork6(text);
    if (!network.ok()) return Error(network.error()).Wrap("network.exceptions");
    options.exceptions6.push_back(*network);
  }
  CUBE_ASSIGN(options.exceptions, Networks(exceptions, "exceptions"));
  CUBE_ASSIGN(options.snat, Networks(config.addresses, "addresses"));
  CUBE_ASSIGN(options.host_network, net::ParseNetwork(config.host_network));
  CUBE_TRY(net::MountBpf(kBpfFolder));
  CUBE_ASSIGN(std::unique_ptr<net::Fabric> fabric, net::Fabric::Open(std::move(options)));
  CUBE_TRY(fabric->Fill(config.taps));
  std::unique_ptr<NodeNetwork> network(new NodeNetwork(io, std::move(fabric), config.taps));
  CUBE_ASSIGN(network->trace_, net::Trace::Open(network->fabric_->programs()));
  CUBE_ASSIGN(network->resolver_,
              net::Resolver::Create(io, network->fabric_.get(), {.servers = config.dns}));
  CUBE_ASSIGN(network->proxy_, net::PeekProxy::Create(io, network->fabric_.get()));
  network->fabric_->SetProxyPorts(network->resolver_->port(), network->proxy_->port(),
                                  network->proxy_->port6());
  network->resolver_->Start();
  network->proxy_->Start();
  Spawn(io, network->LookAfter());
  return network;
}

NodeNetwork::NodeNetwork(asio::io_context& io, std::unique_ptr<net::Fabric> fabric, uint32_t taps)
    : io_(io),
      fabric_(std::move(fabric)),
      taps_(taps),
      reaper_(&fabric_->programs()),
      rounds_(io) {}

NodeNetwork::~NodeNetwork() {
  rounds_.cancel();
  if (resolver_ != nullptr) resolver_->Stop();
  if (proxy_ != nullptr) proxy_->Stop();
}

Outcome<UniqueFd> NodeNetwork::Attach(const std::string& id, const net::Policy& policy) {
  Release(id);
  POOL_ASSIGN(net::LentTap tap, fabric_->Lend());
  Status assigned = fabric_->Assign(tap.slot, id);
  if (!assigned.ok()) {
    fabric_->GiveBack(tap.slot);
    return Refuse(Fault::kInternal, "%s", assigned.error().message().c_str());
  }
  Status ensured = fabric_->EnsureNetwork(id, policy);
  if (!ensured.ok()) {
    Release(id);
    return Refuse(Fault::kInternal, "%s", ensured.error().message().c_str());
  }
  return std::move(tap.fd);
}

Outcome<Done> NodeNetwork::Adopt(const std::string& id, const net::Policy& policy) {
  if (!fabric_->SlotOf(id)) return Done();
  return SetPolicy(id, policy);
}

Outcome<Done> NodeNetwork::SetPolicy(const std::string& id, const net::Policy& policy) {
  auto slot = fabric_->SlotOf(id);
  if (!slot) return Done();
  POOL_TRY(fabric_->EnsureNetwork(id, policy));
  proxy_->Recheck(*slot);
  return Done();
}

void NodeNetwork::Release(const std::string& id) {
  auto slot = fabric_->SlotOf(id);
  if (!slot) return;
  fabric_->ReleaseNetwork(id);
  proxy_->Recheck(*slot);
}

// Tracing goes on for a while after somebody has asked, so that who asks again and again misses
// nothing; then it costs nothing any more.
Task<std::vector<net::bpf::trace_event>> NodeNetwork::AwaitVerdicts(bool all, milliseconds limit) {
  constexpr uint64_t kTracedNs = 10'000'000'000;
  traced_until_ = MonotonicNow() + kTracedNs;
  fabric_->SetTrace(all ? ~0u : ~(1u << net::bpf::REASON_ALLOWED | 1u << net::bpf::REASON_ARP));
  std::vector<net::bpf::trace_event> events = trace_->Take(kMaxVerdicts);
  if (!events.empty()) co_return events;
  int fd = fcntl(trace_->fd(), F_DUPFD_CLOEXEC, 0);
  if (fd < 0) co_return events;
  auto readable = std::make_shared<asio::posix::stream_descriptor>(io_, fd);
  asio::steady_timer timer(io_, limit);
  timer.async_wait([readable](boost::system::error_code cancelled) {
    if (!cancelled) readable->cancel(cancelled);
  });
  co_await readable->async_wait(asio::posix::stream_descriptor::wait_read, kAsTuple);
  timer.cancel();
  co_return trace_->Take(kMaxVerdicts);
}

// The pool of TAPs is kept filled, the tables are kept clean, and the host's addresses denied.
Task<void> NodeNetwork::LookAfter() {
  for (;;) {
    bool over = reaper_.Step(), tidy = fabric_->Tidy();
    if (over) {
      Status refreshed = fabric_->RefreshAddresses();
      if (!refreshed.ok()) spdlog::warn("network: {}", refreshed.error().message());
      if (traced_until_ != 0 && MonotonicNow() > traced_until_) {
        traced_until_ = 0;
        fabric_->SetTrace(0);
      }
      Status filled = fabric_->Fill(taps_);
      if (!filled.ok()) spdlog::warn("network: {}", filled.error().message());
    }
    if (!co_await Sleep(rounds_, over && tidy ? kPass : kStep)) co_return;
  }
}

}  // namespace cube::pool
