#include "pool/program_output.h"

#include <boost/asio/buffer.hpp>
#include <boost/asio/read_until.hpp>
#include <boost/json/parse.hpp>

namespace cube::pool {
namespace {

namespace json = boost::json;

constexpr milliseconds kLimit(60'000);
constexpr size_t kMaxLine = 64 * 1024;

// Why nothing came of it, by a line that is no object: "PROGRAM: REASON".
std::string Reason(const std::string& line) {
  std::string reason = line.substr(0, line.find('\n'));
  for (std::string_view prefix : {"cube-vmm: ", "cube-jail: "}) {
    if (reason.starts_with(prefix)) reason.erase(0, prefix.size());
  }
  return reason;
}

}  // namespace

ProgramOutput::ProgramOutput(asio::io_context& io, UniqueFd output, std::string name)
    : io_(io),
      output_(std::make_shared<asio::posix::stream_descriptor>(io, output.Release())),
      name_(std::move(name)) {}

Task<Outcome<json::object>> ProgramOutput::Await(std::string member) {
  auto output = output_;
  asio::steady_timer timer(io_, kLimit);
  timer.async_wait([output](boost::system::error_code cancelled) {
    if (!cancelled) output->cancel(cancelled);
  });
  for (;;) {
    auto buffer = asio::dynamic_buffer(received_, kMaxLine);
    auto [failed, size] = co_await asio::async_read_until(*output, buffer, '\n', kAsTuple);
    if (failed) {
      timer.cancel();
      if (error_.empty()) error_ = "it has ended without a word";
      co_return Refuse(Fault::kInternal, "%s: %.800s", name_.c_str(), error_.c_str());
    }
    std::string line = received_.substr(0, size);
    received_.erase(0, size);
    json::error_code bad;
    json::value value = json::parse(line, bad);
    json::object* object = bad ? nullptr : value.if_object();
    if (object == nullptr) {
      error_ = Reason(line);
      continue;
    }
    const json::value* error = object->if_contains("error");
    if (error != nullptr && error->is_string()) error_ = std::string(error->get_string());
    if (error == nullptr && object->contains(member)) {
      timer.cancel();
      co_return std::move(*object);
    }
  }
}

}  // namespace cube::pool
