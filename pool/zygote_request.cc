#include "pool/zygote_request.h"

#include <boost/asio/buffer.hpp>
#include <boost/asio/read_until.hpp>
#include <boost/json.hpp>
#include <vector>

#include "vmm/cli/control_server.h"

namespace cube::pool {
namespace {

namespace json = boost::json;

constexpr milliseconds kCloneLimit(20'000);
constexpr size_t kMaxAnswer = 64 * 1024;

// Whether an answer tells of a clone.
Outcome<Done> CheckAnswer(const std::string& answer) {
  json::error_code failed;
  json::value value = json::parse(answer, failed);
  const json::object* object = failed ? nullptr : value.if_object();
  if (object == nullptr) return Refuse(Fault::kInternal, "a zygote answered what is no object");
  if (const json::value* error = object->if_contains("error"); error && error->is_string()) {
    return Refuse(Fault::kInternal, "%.900s", error->get_string().c_str());
  }
  return Done();
}

}  // namespace

Outcome<ZygoteSocket> AdoptSocket(asio::io_context& io, UniqueFd fd) {
  auto socket = std::make_shared<asio::local::stream_protocol::socket>(io);
  boost::system::error_code failed;
  socket->assign(asio::local::stream_protocol(), fd.get(), failed);
  if (failed) return Refuse(Fault::kInternal, "%s", failed.message().c_str());
  fd.Release();
  return socket;
}

Task<Outcome<Done>> AwaitAnswer(asio::io_context& io, ZygoteSocket socket, std::string from,
                                bool* lost) {
  if (lost != nullptr) *lost = false;
  asio::steady_timer timer(io, kCloneLimit);
  timer.async_wait([socket](boost::system::error_code cancelled) {
    if (!cancelled) socket->cancel(cancelled);
  });
  std::string received;
  auto buffer = asio::dynamic_buffer(received, kMaxAnswer);
  auto [failed, size] = co_await asio::async_read_until(*socket, buffer, '\n', kAsTuple);
  timer.cancel();
  if (failed) {
    if (lost != nullptr) *lost = true;
    co_return Refuse(Fault::kInternal, "%s has not answered: %s", from.c_str(),
                     failed.message().c_str());
  }
  co_return CheckAnswer(received.substr(0, size));
}

Task<Outcome<Done>> AskZygote(asio::io_context& io, std::string path, CloneRequest request,
                              bool* lost) {
  if (lost != nullptr) *lost = true;
  POOL_CO_ASSIGN(UniqueFd fd, vmm::ConnectControl(path));
  std::vector<int> descriptors;
  for (const UniqueFd& one : request.descriptors) descriptors.push_back(one.get());
  POOL_CO_TRY(vmm::SendLine(fd.get(), request.line, descriptors));
  POOL_CO_ASSIGN(ZygoteSocket socket, AdoptSocket(io, std::move(fd)));
  co_return co_await AwaitAnswer(io, std::move(socket), "the zygote at " + path, lost);
}

}  // namespace cube::pool
