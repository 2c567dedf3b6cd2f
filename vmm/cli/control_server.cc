#include "vmm/cli/control_server.h"

#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

namespace cube::vmm {
namespace {

// Of a socket that is being made.
constexpr const char* kUnnamedSuffix = ".new";

// The address of a socket. Where the path is longer than an address can hold, its folder is named
// by a descriptor instead, which must stay open while the address is used.
struct Address {
  sockaddr_un address = {};
  UniqueFd folder;
  const sockaddr* generic() const { return reinterpret_cast<const sockaddr*>(&address); }
};

Result<Address> AddressOf(const std::string& path) {
  Address result;
  result.address.sun_family = AF_UNIX;
  std::string text = path;
  if (text.size() >= sizeof result.address.sun_path) {
    size_t slash = path.rfind('/');
    CUBE_ASSIGN(result.folder, OpenFile(path.substr(0, slash), O_PATH | O_DIRECTORY));
    text = Format("/proc/self/fd/%d", result.folder.get()) + path.substr(slash);
  }
  if (text.size() >= sizeof result.address.sun_path) {
    return Errorf("%s: a socket's name has at most %zu bytes", path.c_str(),
                  sizeof result.address.sun_path - 1);
  }
  memcpy(result.address.sun_path, text.data(), text.size());
  return result;
}

Status ListenAs(int listener, const std::string& making, const std::string& path) {
  if (listen(listener, 64) < 0) return ErrnoError("listen at %s", path.c_str());
  if (rename(making.c_str(), path.c_str()) == 0) return OkStatus();
  return ErrnoError("cannot make the socket %s", path.c_str());
}

}  // namespace

bool ControlConnection::Send(std::string_view line) {
  backlog_.append(line);
  backlog_ += '\n';
  return Flush() && backlog_.size() <= kMaxBacklog;
}

bool ControlConnection::Flush() {
  while (!backlog_.empty()) {
    ssize_t n = send(fd_.get(), backlog_.data(), backlog_.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return errno == EAGAIN;
    backlog_.erase(0, static_cast<size_t>(n));
  }
  return true;
}

bool ControlConnection::Receive() {
  char buffer[4096];
  iovec data = {buffer, sizeof buffer};
  alignas(cmsghdr) char control[CMSG_SPACE(kMaxDescriptors * sizeof(int))];
  msghdr message = {};
  message.msg_iov = &data;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  ssize_t n = recvmsg(fd_.get(), &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
  if (n < 0) return errno == EAGAIN || errno == EINTR;
  for (cmsghdr* header = CMSG_FIRSTHDR(&message); header != nullptr;
       header = CMSG_NXTHDR(&message, header)) {
    if (header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS) continue;
    size_t count = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (size_t i = 0; i < count; ++i) {
      int fd;
      memcpy(&fd, CMSG_DATA(header) + i * sizeof fd, sizeof fd);
      descriptors_.emplace_back(fd);
    }
  }
  if (n == 0 || descriptors_.size() > kMaxDescriptors) return false;
  received_.append(buffer, static_cast<size_t>(n));
  return received_.size() <= kMaxLine || received_.find('\n') < kMaxLine;
}

bool ControlConnection::NextLine(std::string* line) {
  size_t end = received_.find('\n');
  if (end == std::string::npos) return false;
  *line = received_.substr(0, end);
  received_.erase(0, end + 1);
  return true;
}

ControlServer::~ControlServer() {
  while (!connections_.empty()) Close(connections_.begin()->first);
  if (!listener_.valid()) return;
  loop_->Remove(listener_.get());
  unlink(path_.c_str());
}

Status ControlServer::Listen(const std::string& path) {
  struct stat info;
  if (lstat(path.c_str(), &info) == 0 && ConnectControl(path).ok()) {
    return Errorf("%s: another process listens there", path.c_str());
  }
  // It has its name only once it listens: who waits for it may connect at once.
  const std::string making = path + kUnnamedSuffix;
  CUBE_ASSIGN(Address address, AddressOf(making));
  UniqueFd listener(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!listener.valid()) return ErrnoError("socket");
  mode_t old = umask(0177);
  int bound = bind(listener.get(), address.generic(), sizeof address.address);
  if (bound < 0 && errno == EADDRINUSE) {
    unlink(making.c_str());
    bound = bind(listener.get(), address.generic(), sizeof address.address);
  }
  umask(old);
  if (bound < 0) return ErrnoError("cannot make the socket %s", making.c_str());
  Status named = ListenAs(listener.get(), making, path);
  if (!named.ok()) {
    unlink(making.c_str());
    return named;
  }
  path_ = path;
  Status added = loop_->Add(listener.get(), EPOLLIN, [this](uint32_t) { OnAccept(); });
  if (!added.ok()) {
    unlink(path.c_str());
    return added;
  }
  listener_ = std::move(listener);
  return OkStatus();
}

Status ControlServer::Adopt(UniqueFd connection) {
  int fd = connection.get();
  CUBE_TRY(loop_->Add(fd, EPOLLIN, [this, fd](uint32_t events) { OnEvents(fd, events); }));
  connections_[fd] = std::make_unique<ControlConnection>(std::move(connection));
  return OkStatus();
}

void ControlServer::OnAccept() {
  UniqueFd fd(accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
  // A peer that gave up, or no descriptor for it: it will see the connection closed.
  if (fd.valid()) (void)Adopt(std::move(fd));
}

void ControlServer::OnEvents(int fd, uint32_t events) {
  auto found = connections_.find(fd);
  if (found == connections_.end()) return;
  ControlConnection* connection = found->second.get();
  bool open = true;
  if ((events & EPOLLOUT) != 0) open = connection->Flush();
  if (open && (events & (EPOLLIN | EPOLLHUP)) != 0) open = connection->Receive();
  if ((events & EPOLLERR) != 0) open = false;
  std::string line;
  while (open && connection->NextLine(&line)) {
    handler_(connection, line, std::exchange(connection->descriptors_, {}));
    open = IsOpen(connection);
    if (!open) return;
  }
  if (!open) {
    Close(fd);
    return;
  }
  uint32_t wanted = EPOLLIN | (connection->backlog_.empty() ? 0u : uint32_t{EPOLLOUT});
  if (!loop_->Modify(fd, wanted).ok()) Close(fd);
}

void ControlServer::Broadcast(std::string_view line) {
  std::vector<int> gone;
  for (auto& [fd, connection] : connections_) {
    if (!connection->Send(line)) gone.push_back(fd);
  }
  for (int fd : gone) Close(fd);
}

bool ControlServer::IsOpen(const ControlConnection* connection) const {
  for (const auto& [fd, other] : connections_) {
    if (other.get() == connection) return true;
  }
  return false;
}

void ControlServer::Close(int fd) {
  loop_->Remove(fd);
  connections_.erase(fd);
}

void ControlServer::ForgetAfterFork() {
  connections_.clear();
  listener_.Reset();
  path_.clear();
}

Result<UniqueFd> ConnectControl(const std::string& path) {
  CUBE_ASSIGN(Address address, AddressOf(path));
  UniqueFd fd(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!fd.valid()) return ErrnoError("socket");
  if (connect(fd.get(), address.generic(), sizeof address.address) < 0) {
    return ErrnoError("cannot reach %s", path.c_str());
  }
  return fd;
}

Status SendLine(int fd, std::string_view line, const std::vector<int>& descriptors) {
  std::string text(line);
  text += '\n';
  if (descriptors.size() > ControlConnection::kMaxDescriptors)
    return Errorf("too many descriptors");
  iovec data = {text.data(), text.size()};
  alignas(cmsghdr) char control[CMSG_SPACE(ControlConnection::kMaxDescriptors * sizeof(int))] = {};
  msghdr message = {};
  message.msg_iov = &data;
  message.msg_iovlen = 1;
  if (!descriptors.empty()) {
    message.msg_control = control;
    message.msg_controllen = CMSG_SPACE(descriptors.size() * sizeof(int));
    cmsghdr* header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(descriptors.size() * sizeof(int));
    memcpy(CMSG_DATA(header), descriptors.data(), descriptors.size() * sizeof(int));
  }
  while (data.iov_len > 0) {
    ssize_t n = sendmsg(fd, &message, MSG_NOSIGNAL);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return ErrnoError("sending a request");
    data.iov_base = static_cast<char*>(data.iov_base) + n;
    data.iov_len -= static_cast<size_t>(n);
    message.msg_control = nullptr;
    message.msg_controllen = 0;
  }
  return OkStatus();
}

Result<std::string> ReceiveLine(int fd, std::string* buffer) {
  for (;;) {
    size_t end = buffer->find('\n');
    if (end != std::string::npos) {
      std::string line = buffer->substr(0, end);
      buffer->erase(0, end + 1);
      return line;
    }
    char piece[4096];
    ssize_t n = recv(fd, piece, sizeof piece, 0);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return ErrnoError("waiting for an answer");
    if (n == 0) return Errorf("the VMM closed the connection without an answer");
    buffer->append(piece, static_cast<size_t>(n));
  }
}

}  // namespace cube::vmm
