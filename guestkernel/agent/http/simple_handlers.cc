#include "guestkernel/agent/http/simple_handlers.h"

#include <utility>

#include "base/result.h"

namespace cube::agent::http {
namespace {

class Ignore final : public Handler {
 public:
  void OnBody(std::string_view) override {}
  void OnBodyEnd() override {}
};

class Collect final : public Handler {
 public:
  using Use = std::function<void(std::string)>;
  using Refuse = std::function<void(int, const std::string&)>;

  Collect(Response* response, size_t limit, Use use, Refuse refuse)
      : budget_(response->memory()),
        limit_(limit),
        use_(std::move(use)),
        refuse_(std::move(refuse)),
        memory_(budget_) {}

  void OnBody(std::string_view bytes) override {
    if (bytes.size() > limit_ - body_.size()) {
      return refuse_(413, Format("the request is larger than %zu bytes", limit_));
    }
    if (!memory_.Keep(body_.size() + bytes.size())) return refuse_(503, budget_->Refusal());
    body_ += bytes;
  }
  void OnBodyEnd() override { use_(std::move(body_)); }

 private:
  MemoryBudget* budget_;
  size_t limit_;
  Use use_;
  Refuse refuse_;
  std::string body_;
  MemoryBudget::Lease memory_;
};

}  // namespace

std::unique_ptr<Handler> Answer(Response* response, int status, const Response::Fields& fields,
                                std::string_view body) {
  response->Send(status, fields, body);
  return std::make_unique<Ignore>();
}

std::unique_ptr<Handler> CollectBody(
    Response* response, size_t limit, std::function<void(std::string body)> use,
    std::function<void(int status, const std::string& why)> refuse) {
  return std::make_unique<Collect>(response, limit, std::move(use), std::move(refuse));
}

}  // namespace cube::agent::http
