#include "guestkernel/agent/http/simple_handlers.h"

#include <utility>

namespace cube::agent::http {
namespace {

class Ignore final : public Handler {
 public:
  void OnBody(std::string_view) override {}
  void OnBodyEnd() override {}
};

class Collect final : public Handler {
 public:
  Collect(size_t limit, std::function<void(std::string)> use, std::function<void()> too_large)
      : limit_(limit), use_(std::move(use)), too_large_(std::move(too_large)) {}

  void OnBody(std::string_view bytes) override {
    if (bytes.size() > limit_ - body_.size()) return too_large_();
    body_ += bytes;
  }
  void OnBodyEnd() override { use_(std::move(body_)); }

 private:
  size_t limit_;
  std::function<void(std::string)> use_;
  std::function<void()> too_large_;
  std::string body_;
};

}  // namespace

std::unique_ptr<Handler> Answer(Response* response, int status, const Response::Fields& fields,
                                std::string_view body) {
  response->Send(status, fields, body);
  return std::make_unique<Ignore>();
}

std::unique_ptr<Handler> CollectBody(size_t limit, std::function<void(std::string body)> use,
                                     std::function<void()> too_large) {
  return std::make_unique<Collect>(limit, std::move(use), std::move(too_large));
}

}  // namespace cube::agent::http
