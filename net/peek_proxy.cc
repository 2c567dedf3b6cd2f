#include "net/peek_proxy.h"

#include <arpa/inet.h>
#include <bpf/bpf.h>
#include <netinet/in.h>

#include <boost/asio/buffer.hpp>
#include <boost/asio/write.hpp>
#include <cstring>

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

asio::ip::address_v6 AsioAddress(const bpf::address6& address) {
  asio::ip::address_v6::bytes_type bytes;
  memcpy(bytes.data(), &address, bytes.size());
  return asio::ip::address_v6(bytes);
}

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
  Tcp::endpoint target;
  std::string name;
  std::vector<uint8_t> head;
};

Result<std::shared_ptr<PeekProxy>> PeekProxy::Create(asio::io_context& io, Fabric* fabric) {
  std::shared_ptr<PeekProxy> proxy(new PeekProxy(io, fabric));
  asio::ip::address_v4 address(ntohl(fabric->host_address()));
  CUBE_TRY(Listen(&proxy->listener_, address));
  if (!fabric->has_host_address6()) return proxy;
  CUBE_TRY(Listen(&proxy->listener6_, AsioAddress(ToWire(kHostAddress6))));
  return proxy;
}

Status PeekProxy::Listen(Tcp::acceptor* listener, const asio::ip::address& address) {
  boost::system::error_code failed;
  listener->open(address.is_v6() ? Tcp::v6() : Tcp::v4(), failed);
  if (!failed) listener->bind({address, 0}, failed);
  if (!failed) listener->listen(asio::socket_base::max_listen_connections, failed);
  if (!failed) return OkStatus();
  return Errorf("the proxy at %s: %s", address.to_string().c_str(), failed.message().c_str());
}

void PeekProxy::Start() {
  pool::Spawn(io_, Accept(&listener_));
  if (listener6_.is_open()) pool::Spawn(io_, Accept(&listener6_));
}

void PeekProxy::Stop() {
  boost::system::error_code ignored;
  listener_.close(ignored);
  listener6_.close(ignored);
  for (auto& [slot, connections] : connections_) {
    for (const auto& connection : connections) connection->Abort();
  }
}

Task<void> PeekProxy::Accept(Tcp::acceptor* listener) {
  auto self = shared_from_this();
  while (listener->is_open()) {
    auto [failed, socket] = co_await listener->async_accept(kAsTuple);
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
  bool found =
      from.address().is_v6() ? FindTarget6(connection, from) : FindTarget4(connection, from);
  if (found) connection->epoch = fabric_->SlotState(connection->slot).epoch;
  return found;
}

bool PeekProxy::FindTarget4(Connection* connection, const Tcp::endpoint& from) {
  uint32_t source = htonl(from.address().to_v4().to_uint());
  bpf::v4::reverse_key name = {fabric_->host_address(), source,      htons(port()),
                               htons(from.port()),      IPPROTO_TCP, {}};
  bpf::v4::flow_key key = {};
  if (bpf_map_lookup_elem(fabric_->programs().maps().reverse, &name, &key) != 0) return false;
  connection->slot = fabric_->SlotByAddress(source);
  connection->target = {asio::ip::address_v4(ntohl(key.remote)), ntohs(key.remote_port)};
  return connection->slot != 0 && key.slot == connection->slot &&
         !fabric_->fixed().IsDenied(FromWire(key.remote));
}

bool PeekProxy::FindTarget6(Connection* connection, const Tcp::endpoint& from) {
  bpf::address6 source;
  auto bytes = from.address().to_v6().to_bytes();
  memcpy(&source, bytes.data(), sizeof source);
  bpf::v6::reverse_key name = {ToWire(kHostAddress6), source,      htons(port6()),
                               htons(from.port()),    IPPROTO_TCP, {}};
  bpf::v6::flow_key key = {};
  if (bpf_map_lookup_elem(fabric_->programs().maps6().reverse, &name, &key) != 0) return false;
  connection->slot = fabric_->SlotByAddress6(source);
  connection->target = {AsioAddress(key.remote), ntohs(key.remote_port)};
  return connection->slot != 0 && key.slot == connection->slot &&
         !fabric_->fixed6().IsDenied(FromWire(key.remote));
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
    ClientName said = connection->target.port() == kHttp ? ReadHttpName(head) : ReadTlsName(head);
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
    connection->world.open(connection->target.protocol(), bad);
    auto [failed] = co_await connection->world.async_connect(connection->target, kAsTuple);
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
