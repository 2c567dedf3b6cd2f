#include "pool/vm.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <boost/asio/buffer.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/read_until.hpp>
#include <boost/json/parse.hpp>

#include "pool/jail/place.h"
#include "vmm/cli/control_server.h"

namespace cube::pool {
namespace {

namespace json = boost::json;

constexpr size_t kMaxAnswer = 1 << 20;
constexpr milliseconds kKillLimit(10'000);

}  // namespace

Outcome<std::shared_ptr<Vm>> Vm::Connect(asio::io_context& io, const std::string& id,
                                         const std::string& path) {
  // The machine may have put a link in its place.
  POOL_ASSIGN(UniqueFd place, OpenNoLinks(path, O_PATH));
  POOL_ASSIGN(UniqueFd socket, vmm::ConnectControl(Format("/proc/self/fd/%d", place.get())));
  ucred peer = {};
  socklen_t size = sizeof peer;
  if (getsockopt(socket.get(), SOL_SOCKET, SO_PEERCRED, &peer, &size) < 0) {
    return ErrnoError("SO_PEERCRED of %s", path.c_str());
  }
  POOL_ASSIGN(ProcessHandle process, ProcessHandle::Open(peer.pid));
  return Make(io, id, std::move(process), std::move(socket));
}

std::shared_ptr<Vm> Vm::Make(asio::io_context& io, const std::string& id, ProcessHandle process,
                             UniqueFd socket) {
  std::shared_ptr<Vm> vm(new Vm(io, id, std::move(process), std::move(socket)));
  vm->Watch();
  return vm;
}

Vm::Vm(asio::io_context& io, std::string id, ProcessHandle process, UniqueFd socket)
    : io_(io), id_(std::move(id)), process_(std::move(process)), socket_(io), watched_(io) {
  boost::system::error_code failed;
  socket_.assign(asio::local::stream_protocol(), socket.get(), failed);
  if (!failed) socket.Release();
  int watched = fcntl(process_.fd(), F_DUPFD_CLOEXEC, 0);
  watched_.assign(watched, failed);
  if (failed && watched >= 0) close(watched);
}

void Vm::Watch() {
  watched_.async_wait(asio::posix::stream_descriptor::wait_read,
                      [weak = weak_from_this()](boost::system::error_code failed) {
                        auto vm = weak.lock();
                        if (failed || vm == nullptr || !vm->exited_) return;
                        std::exchange(vm->exited_, nullptr)();
                      });
}

void Vm::OnExit(std::function<void()> exited) {
  exited_ = std::move(exited);
  if (exited_ && !Alive()) {
    asio::post(io_, [vm = shared_from_this()] {
      if (vm->exited_) std::exchange(vm->exited_, nullptr)();
    });
  }
}

Status Vm::Post(const std::string& request, const std::vector<UniqueFd>& descriptors) {
  if (!socket_.is_open()) return Errorf("the connection to %s is over", id_.c_str());
  // A request is smaller than what a socket takes at once; a machine that has not read those before
  // it hangs.
  std::vector<int> numbers;
  for (const UniqueFd& descriptor : descriptors) numbers.push_back(descriptor.get());
  return vmm::SendLine(socket_.native_handle(), request, numbers);
}

Task<Outcome<json::object>> Vm::Answer(milliseconds limit) {
  auto self = shared_from_this();
  // The timer's handler may be under way when this has gone on.
  struct Wait {
    bool over = false, late = false;
  };
  auto wait = std::make_shared<Wait>();
  asio::steady_timer timer(io_, limit);
  timer.async_wait([wait, self](boost::system::error_code cancelled) {
    if (cancelled || wait->over) return;
    wait->late = true;
    self->socket_.cancel(cancelled);
  });
  auto buffer = asio::dynamic_buffer(received_, kMaxAnswer);
  auto [failed, size] = co_await asio::async_read_until(socket_, buffer, '\n', kAsTuple);
  wait->over = true;
  timer.cancel();
  if (failed) {
    // What comes later would be taken for the answer to another request.
    boost::system::error_code ignored;
    socket_.close(ignored);
    if (wait->late) {
      co_return Refuse(Fault::kInternal, "%s has not answered within %lld ms", id_.c_str(),
                       static_cast<long long>(limit.count()));
    }
    co_return Refuse(Fault::kInternal, "%s has ended, or its control socket: %s", id_.c_str(),
                     failed.message().c_str());
  }
  std::string line = received_.substr(0, size);
  received_.erase(0, size);
  json::error_code bad;
  json::value value = json::parse(line, bad);
  if (bad || !value.is_object()) {
    co_return Refuse(Fault::kInternal, "%s has answered what is no object", id_.c_str());
  }
  json::object& answer = value.get_object();
  const json::value* ok = answer.if_contains("ok");
  if (ok != nullptr && ok->is_bool() && ok->get_bool()) co_return std::move(answer);
  const json::value* error = answer.if_contains("error");
  std::string text =
      error != nullptr && error->is_string() ? std::string(error->get_string()) : "no reason given";
  const json::value* code = answer.if_contains("code");
  const bool is_invalid =
      code != nullptr && code->is_string() && code->get_string() == FaultName(Fault::kInvalid);
  co_return Refuse(is_invalid ? Fault::kInvalid : Fault::kInternal, "%.900s", text.c_str());
}

Task<Outcome<json::object>> Vm::Ask(std::string request, milliseconds limit,
                                    std::vector<UniqueFd> descriptors) {
  auto self = shared_from_this();
  POOL_CO_TRY(Post(request, descriptors));
  descriptors.clear();
  co_return co_await Answer(limit);
}

Task<void> Vm::Kill() {
  auto self = shared_from_this();
  process_.Kill();
  co_await AwaitExit(io_, process_.fd(), kKillLimit);
}

Task<bool> AwaitExit(asio::io_context& io, int pidfd, milliseconds limit) {
  int copy = fcntl(pidfd, F_DUPFD_CLOEXEC, 0);
  if (copy < 0) co_return false;
  auto descriptor = std::make_shared<asio::posix::stream_descriptor>(io, copy);
  asio::steady_timer timer(io, limit);
  timer.async_wait([descriptor](boost::system::error_code cancelled) {
    if (!cancelled) descriptor->cancel(cancelled);
  });
  auto [failed] =
      co_await descriptor->async_wait(asio::posix::stream_descriptor::wait_read, kAsTuple);
  timer.cancel();
  co_return !failed;
}

}  // namespace cube::pool
