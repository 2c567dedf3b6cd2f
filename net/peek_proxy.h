#ifndef CUBE_NET_PEEK_PROXY_H_
#define CUBE_NET_PEEK_PROXY_H_

#include <boost/asio/ip/tcp.hpp>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "net/client_name.h"
#include "net/fabric.h"
#include "pool/async.h"

namespace cube::net {

using pool::Task;
namespace asio = boost::asio;

// Where connections to addresses that a name has opened are led (port 80 and 443): the name that
// the client asks for has to be on the sandbox's list, too, since others may have the same address.
// Then bytes go to and fro as they are. On one thread.
class PeekProxy : public std::enable_shared_from_this<PeekProxy> {
 public:
  struct Statistics {
    uint64_t connections = 0, refused = 0, failed = 0;
  };

  // Listens at the fabric's host-side addresses. `fabric` outlives it.
  static Result<std::shared_ptr<PeekProxy>> Create(asio::io_context& io, Fabric* fabric);
  void Start();
  void Stop();
  // After the policy of a sandbox has changed, or it is gone: connections to names that it may not
  // reach any more end.
  void Recheck(uint32_t slot);
  uint16_t port() const { return listener_.local_endpoint().port(); }
  // 0 if the host has no IPv6 for it.
  uint16_t port6() const { return listener6_.is_open() ? listener6_.local_endpoint().port() : 0; }
  const Statistics& statistics() const { return statistics_; }

 private:
  using Tcp = asio::ip::tcp;
  struct Connection;

  PeekProxy(asio::io_context& io, Fabric* fabric)
      : io_(io), fabric_(fabric), listener_(io), listener6_(io) {}
  static Status Listen(Tcp::acceptor* listener, const asio::ip::address& address);
  Task<void> Accept(Tcp::acceptor* listener);
  Task<void> Serve(std::shared_ptr<Connection> connection);
  // Where the guest meant to go; false if that is not known.
  bool FindTarget(Connection* connection);
  bool FindTarget4(Connection* connection, const Tcp::endpoint& from);
  bool FindTarget6(Connection* connection, const Tcp::endpoint& from);
  Task<bool> ReadName(std::shared_ptr<Connection> connection);
  static Task<void> Carry(std::shared_ptr<Connection> connection, bool outward);
  bool MayReach(const Connection& connection) const;

  asio::io_context& io_;
  Fabric* fabric_;
  Tcp::acceptor listener_, listener6_;
  std::map<uint32_t, std::set<std::shared_ptr<Connection>>> connections_;
  size_t count_ = 0;
  Statistics statistics_;
};

}  // namespace cube::net

#endif  // CUBE_NET_PEEK_PROXY_H_
