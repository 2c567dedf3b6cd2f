#ifndef CUBE_VMM_CLI_CONTROL_SERVER_H_
#define CUBE_VMM_CLI_CONTROL_SERVER_H_

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"
#include "vmm/event_loop.h"

namespace cube::vmm {

// One peer of a control socket: lines of JSON both ways, descriptors with them (SCM_RIGHTS). On the
// event loop's thread.
class ControlConnection {
 public:
  // A request is at most this long; a peer that sends more is cut off.
  static constexpr size_t kMaxLine = 64 * 1024;
  // What a peer does not read is kept up to this.
  static constexpr size_t kMaxBacklog = 1 << 20;
  static constexpr size_t kMaxDescriptors = 16;

  explicit ControlConnection(UniqueFd fd) : fd_(std::move(fd)) {}

  // Sends a line (without its end). What the socket does not take now is sent later by Flush();
  // false if the peer is gone or has not read for long.
  bool Send(std::string_view line);

 private:
  friend class ControlServer;

  // False: the connection is over.
  bool Receive();
  bool Flush();
  bool NextLine(std::string* line);

  UniqueFd fd_;
  std::string received_;
  std::string backlog_;
  std::vector<UniqueFd> descriptors_;
};

// The control socket of a VMM process: a Unix stream socket at a path, of mode 0600, or connections
// that were handed to it. On the event loop's thread.
class ControlServer {
 public:
  // A request and the descriptors that came with it. The connection is valid until the handler
  // returns; ControlServer::Find() tells later whether it still is.
  using Handler =
      std::function<void(ControlConnection* from, const std::string& line, std::vector<UniqueFd>)>;

  // `loop` outlives the server.
  ControlServer(EventLoop* loop, Handler handler) : loop_(loop), handler_(std::move(handler)) {}
  ~ControlServer();
  ControlServer(const ControlServer&) = delete;
  ControlServer& operator=(const ControlServer&) = delete;

  // Listens at `path`, which is there only once it does, and removes it in the end. A socket that
  // nobody listens at any more is replaced; an error if somebody does.
  Status Listen(const std::string& path);
  // Serves a connection.
  Status Adopt(UniqueFd connection);

  // Sends a line to every peer.
  void Broadcast(std::string_view line);
  bool IsOpen(const ControlConnection* connection) const;

  // Forgets everything without touching the socket's path: in the child of a fork.
  void ForgetAfterFork();

 private:
  void OnAccept();
  void OnEvents(int fd, uint32_t events);
  void Close(int fd);

  EventLoop* loop_;
  Handler handler_;
  std::string path_;
  UniqueFd listener_;
  std::map<int, std::unique_ptr<ControlConnection>> connections_;
};

// A connection to the socket at `path`.
Result<UniqueFd> ConnectControl(const std::string& path);
// Sends one line, with `descriptors`, on a blocking socket.
Status SendLine(int fd, std::string_view line, const std::vector<int>& descriptors = {});
// Waits for one line; `buffer` keeps what came after it.
Result<std::string> ReceiveLine(int fd, std::string* buffer);

}  // namespace cube::vmm

#endif  // CUBE_VMM_CLI_CONTROL_SERVER_H_
