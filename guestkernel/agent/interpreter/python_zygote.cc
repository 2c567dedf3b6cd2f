#include "guestkernel/agent/interpreter/python_zygote.h"

#include <signal.h>
#include <sys/socket.h>

#include <cstring>

#include "base/json_writer.h"

namespace cube::agent::interpreter {

Status PythonZygote::Fork(const std::string& directory, const WorkerPipes& pipes, bool warm) {
  // The one there was may have ended.
  if (control_.valid() && Send(directory, pipes, warm)) return OkStatus();
  CUBE_TRY(Start());
  if (!Send(directory, pipes, warm)) return ErrnoError("cannot ask Python for a context");
  return OkStatus();
}

void PythonZygote::Stop() {
  if (control_.valid()) kill(-pid_, SIGKILL);
  control_.Reset();
}

Status PythonZygote::Start() {
  control_.Reset();
  int fds[2];
  // Packets, so that each request keeps its descriptors.
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds) < 0) {
    return ErrnoError("socketpair");
  }
  UniqueFd ours(fds[0]);
  UniqueFd its(fds[1]);
  Result<pid_t> pid = launch_(its.get());
  if (!pid.ok()) return pid.error();
  control_ = std::move(ours);
  pid_ = *pid;
  return OkStatus();
}

bool PythonZygote::Send(const std::string& directory, const WorkerPipes& pipes, bool warm) {
  JsonWriter request;
  request.BeginObject().Key("cwd").String(directory).Key("warm").Bool(warm).EndObject();
  const int fds[] = {pipes.its_control.get(), pipes.its_output.get(), pipes.its_error.get()};
  iovec part = {const_cast<char*>(request.text().data()), request.text().size()};
  alignas(cmsghdr) char ancillary[CMSG_SPACE(sizeof fds)] = {};
  msghdr message = {};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = ancillary;
  message.msg_controllen = sizeof ancillary;
  cmsghdr* rights = CMSG_FIRSTHDR(&message);
  rights->cmsg_level = SOL_SOCKET;
  rights->cmsg_type = SCM_RIGHTS;
  rights->cmsg_len = CMSG_LEN(sizeof fds);
  memcpy(CMSG_DATA(rights), fds, sizeof fds);
  return sendmsg(control_.get(), &message, MSG_NOSIGNAL | MSG_DONTWAIT) >= 0;
}

}  // namespace cube::agent::interpreter
