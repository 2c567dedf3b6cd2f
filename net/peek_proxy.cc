#include "net/peek_proxy.h"

#include <arpa/inet.h>
#include <bpf/bpf.h>
#include <netinet/in.h>

#include <boost/asio/buffer.hpp>
#include <boost/asio/write.hpp>

namespace cube::net {
namespace {

using pool::kAsTuple;
using pool::milliseconds;

constexpr milliseconds kNameLimit(10'000);
constexpr milliseconds kConnectLimit(10'000);
constexpr size_t kMaxConnections = 4096;
constexpr size_t kMaxOfSlot = 256;
constexpr size_t kBuffer = 16 * 1024;
constexpr uint16_t kHttp = 80;

}  // namespace

struct PeekProxy::Connection {
  Connection(asio::io_context& io, Tcp::socket accepted)
      : guest(std::move(accepted)), world(io), timer(io) {}
  // With a reset, so that nobody takes it for the end of a whole answer.
  void Abort() {
    boost::system::error_code ignored;
    if (guest.is_open()) guest.set_option(asio::socket_base::linger(true, 0), ignored);
    if (world.is_open()) world.set_option(asio::socket_base::linger(true, 0), ignored);
    guest.close(ignored);
    world.close(ignored);
    timer.cancel();
  }
  void Limit(milliseconds limit, const std::shared_ptr<Connection>& self) {
    timer.expires_after(limit);
    timer.async_wait([self](boost::system::error_code cancelled) {
      if (!cancelled) self->Abort();
    });
  }

  Tcp::socket guest, world;
  asio::steady_timer timer;
  uint32_t slot = 0;
  uint32_t epoch = 0;
  uint32_t remote = 0;
  uint16_t port = 0;
  std::string name;
  std::vector<uint8_t> head;
};

Result<std::shared_ptr<PeekProxy>> PeekProxy::Create(asio::io_context& io, Fabric* fabric) {
  std::shared_ptr<PeekProxy> proxy(new PeekProxy(io, fabric));
  asio::ip::address_v4 address(ntohl(fabric->host_address()));
  boost::system::error_code failed;
  proxy->listener_.open(Tcp::v4(), failed);
  if (!failed) proxy->listener_.bind({address, 0}, failed);
  if (!failed) proxy->listener_.listen(asio::socket_base::max_listen_connections, failed);
  if (!failed) return proxy;
  return Errorf("the proxy at %s: %s", address.to_string().c_str(), failed.message().c_str());
}

void PeekProxy::Start() { pool::Spawn(io_, Accept()); }

void PeekProxy::Stop() {
  boost::system::error_code ignored;
  listener_.close(ignored);
  for (auto& [slot, connections] : connections_) {
    for (const auto& connection : connections) connection->Abort();
  }
}

Task<void> PeekProxy::Accept() {
  auto self = shared_from_this();
  while (listener_.is_open()) {
    auto [failed, socket] = co_await listener_.async_accept(kAsTuple);
    if (failed == asio::error::operation_aborted) co_return;
    if (failed) continue;
    auto connection = std::make_shared<Connection>(io_, std::move(socket));
    if (!FindTarget(&*connection) || count_ >= kMaxConnections ||
        connections_[connection->slot].size() >= kMaxOfSlot) {
      ++statistics_.refused;
      connection->Abort();
      continue;
    }
    pool::Spawn(io_, Serve(std::move(connection)));
  }
}

bool PeekProxy::FindTarget(Connection* connection) {
  boost::system::error_code failed;
  auto from = connection->guest.remote_endpoint(failed);
  if (failed) return false;
  bpf::reverse_key name = {};
  name.target = fabric_->host_address();
  name.source = htonl(from.address().to_v4().to_uint());
  name.target_port = htons(port());
  name.source_port = htons(from.port());
  name.protocol = IPPROTO_TCP;
  bpf::flow_key key = {};
  if (bpf_map_lookup_elem(fabric_->programs().maps().reverse, &name, &key) != 0) return false;
  connection->slot = fabric_->SlotByAddress(name.source);
  connection->remote = key.remote;
  connection->port = ntohs(key.remote_port);
  if (connection->slot == 0 || key.slot != connection->slot) return false;
  connection->epoch = fabric_->SlotState(connection->slot).epoch;
  return !fabric_->fixed().IsDenied(ntohl(key.remote));
}

bool PeekProxy::MayReach(const Connection& connection) const {
  const Policy* policy = fabric_->PolicyOf(connection.slot);
  return policy != nullptr && fabric_->SlotState(connection.slot).epoch == connection.epoch &&
         MatchesDomain(policy->domains, connection.name);
}

Task<bool> PeekProxy::ReadName(std::shared_ptr<Connection> connection) {
  connection->Limit(kNameLimit, connection);
  std::vector<uint8_t>& head = connection->head;
  while (head.size() < kMaxClientHead) {
    size_t size = head.size();
    head.resize(std::min(size + 4096, kMaxClientHead));
    auto [failed, got] = co_await connection->guest.async_read_some(
        asio::buffer(head.data() + size, head.size() - size), kAsTuple);
    head.resize(size + got);
    if (failed) co_return false;
    ClientName said = connection->port == kHttp ? ReadHttpName(head) : ReadTlsName(head);
    if (said.state == ClientName::kMore) continue;
    if (said.state == ClientName::kRefused) co_return false;
    connection->name = said.name;
    if (said.consumed != 0) {
      head.erase(head.begin(), head.begin() + static_cast<long>(said.consumed));
      head.insert(head.begin(), said.head.begin(), said.head.end());
    }
    co_return true;
  }
  co_return false;
}

Task<void> PeekProxy::Serve(std::shared_ptr<Connection> connection) {
  auto self = shared_from_this();
  connections_[connection->slot].insert(connection);
  ++count_;
  ++statistics_.connections;
  bool is_named = co_await ReadName(connection);
  if (!is_named || !MayReach(*connection)) {
    ++statistics_.refused;
    connection->Abort();
  } else {
    connection->Limit(kConnectLimit, connection);
    boost::system::error_code bad;
    connection->world.open(Tcp::v4(), bad);
    Tcp::endpoint target(asio::ip::address_v4(ntohl(connection->remote)), connection->port);
    auto [failed] = co_await connection->world.async_connect(target, kAsTuple);
    if (!failed) {
      auto [unsent, sent] =
          co_await asio::async_write(connection->world, asio::buffer(connection->head), kAsTuple);
      bad = unsent;
    } else {
      bad = failed;
    }
    connection->timer.cancel();
    // The policy may have become another meanwhile.
    if (bad || !MayReach(*connection)) {
      ++statistics_.failed;
      connection->Abort();
    } else {
      pool::Spawn(io_, Carry(connection, false));
      co_await Carry(connection, true);
      // The other direction ends by itself, or with this.
      while (connection->guest.is_open() && connection->world.is_open()) {
        connection->timer.expires_after(std::chrono::hours(24));
        co_await connection->timer.async_wait(kAsTuple);
      }
    }
  }
  connections_[connection->slot].erase(connection);
  --count_;
}

// One direction, until its end; what comes first of the ends of both closes nothing but its own.
Task<void> PeekProxy::Carry(std::shared_ptr<Connection> connection, bool outward) {
  Tcp::socket& from = outward ? connection->guest : connection->world;
  Tcp::socket& to = outward ? connection->world : connection->guest;
  std::vector<uint8_t> buffer(kBuffer);
  for (;;) {
    auto [failed, got] = co_await from.async_read_some(asio::buffer(buffer), kAsTuple);
    if (failed == asio::error::eof) {
      boost::system::error_code ignored;
      to.shutdown(asio::socket_base::shutdown_send, ignored);
      if (!outward) {
        // The world has said all: what the guest still sends nobody reads.
        connection->guest.close(ignored);
        connection->world.close(ignored);
        connection->timer.cancel();
      }
      co_return;
    }
    if (failed) break;
    auto [unsent, sent] =
        co_await asio::async_write(to, asio::buffer(buffer.data(), got), kAsTuple);
    if (unsent) break;
  }
  connection->Abort();
}

void PeekProxy::Recheck(uint32_t slot) {
  auto found = connections_.find(slot);
  if (found == connections_.end()) return;
  for (const auto& connection : found->second) {
    // One that has not told its name yet is looked at when it does.
    if (!connection->name.empty() && !MayReach(*connection)) connection->Abort();
  }
}

}  // namespace cube::net
