#ifndef CUBE_NET_RESOLVER_H_
#define CUBE_NET_RESOLVER_H_

#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/ip/udp.hpp>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "net/dns_message.h"
#include "net/fabric.h"
#include "pool/async.h"

namespace cube::net {

using pool::Task;
namespace asio = boost::asio;

// The name server of all sandboxes, at their gateway: it asks others, by UDP and TCP, if the
// sandbox's policy lets it ask for the name, and opens the addresses that names of its list have,
// for as long as the answer is good. Addresses that are denied to all are left out of answers, and
// those of IPv6 where it is not carried. On one thread.
class Resolver : public std::enable_shared_from_this<Resolver> {
 public:
  struct Options {
    std::vector<std::string> servers;  // "A.B.C.D" or "A.B.C.D:PORT"; none: the host's
  };
  struct Statistics {
    uint64_t queries = 0, answered = 0, refused = 0, failed = 0;
  };

  // Listens at the fabric's host-side address. `fabric` outlives it.
  static Result<std::shared_ptr<Resolver>> Create(asio::io_context& io, Fabric* fabric,
                                                  const Options& options);
  void Start();
  void Stop();
  uint16_t port() const { return datagrams_.local_endpoint().port(); }
  const Statistics& statistics() const { return statistics_; }

 private:
  using Udp = asio::ip::udp;
  using Tcp = asio::ip::tcp;
  using Message = std::vector<uint8_t>;

  Resolver(asio::io_context& io, Fabric* fabric)
      : io_(io), fabric_(fabric), datagrams_(io), listener_(io) {}
  Status Listen();
  Task<void> ServeDatagrams();
  Task<void> AnswerDatagram(Message query, Udp::endpoint from);
  Task<void> ServeConnections();
  Task<void> ServeConnection(Tcp::socket socket);
  // The answer to a query of the sandbox in `slot`; empty if there is to be none.
  Task<Message> Answer(Message query, uint32_t slot);
  Task<Message> Ask(DnsQuestion question);
  Task<Message> AskByUdp(const DnsQuestion& question, Udp::endpoint server, uint16_t id);
  Task<Message> AskByTcp(const DnsQuestion& question, Udp::endpoint server, uint16_t id);
  Message Filter(const DnsQuestion& question, Message answer, uint32_t slot, uint32_t epoch);

  asio::io_context& io_;
  Fabric* fabric_;
  Udp::socket datagrams_;
  Tcp::acceptor listener_;
  std::vector<Udp::endpoint> servers_;
  std::map<uint32_t, uint32_t> busy_;  // slot: queries and connections under way
  uint32_t all_busy_ = 0;
  Statistics statistics_;
};

// The IPv4 name servers of resolv.conf(5), as text.
std::vector<std::string> HostNameServers(const std::string& text);

}  // namespace cube::net

#endif  // CUBE_NET_RESOLVER_H_
