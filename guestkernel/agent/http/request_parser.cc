#include "guestkernel/agent/http/request_parser.h"

#include <boost/beast/http/basic_parser.hpp>
#include <utility>

namespace cube::agent::http {
namespace {

namespace beast = boost::beast;
using beast::error_code;

std::string LowerCase(beast::string_view text) {
  std::string lower(text.data(), text.size());
  for (char& c : lower) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
  return lower;
}

}  // namespace

// What Boost's parser finds, as a Request.
class RequestParser::Beast final : public beast::http::basic_parser<true> {
 public:
  Beast() {
    header_limit(static_cast<uint32_t>(kMaxHead));
    body_limit(boost::none);  // whoever takes the body has limits of its own
  }

  Request request;
  const Body* body = nullptr;
  bool head_done = false;
  size_t size = 0;  // of the fields

 private:
  void on_request_impl(beast::http::verb, beast::string_view method, beast::string_view target,
                       int version, error_code&) override {
    request.method.assign(method.data(), method.size());
    std::string_view text(target.data(), target.size());
    const size_t question = text.find('?');
    request.path = DecodePercent(text.substr(0, question), false);
    if (question != std::string_view::npos) request.query = ParseQuery(text.substr(question + 1));
    request.old_version = version < 11;
  }
  void on_field_impl(beast::http::field, beast::string_view name, beast::string_view value,
                     error_code& ec) override {
    // Trailers come this way too; what they say is too late to matter.
    if (head_done) return;
    // Boost bounds each field by kMaxHead, but not their sum.
    size += name.size() + value.size();
    if (request.fields.size() >= kMaxFields || size > kMaxHead) {
      ec = beast::http::error::header_limit;
      return;
    }
    request.fields.emplace_back(LowerCase(name), std::string(value.data(), value.size()));
  }
  void on_header_impl(error_code&) override {
    head_done = true;
    request.keep_alive = keep_alive();
    if (auto length = content_length()) request.content_length = *length;
    const std::string* expect = request.Field("expect");
    request.expects_continue =
        expect != nullptr && !request.old_version && beast::iequals(*expect, "100-continue");
  }
  void on_body_init_impl(const boost::optional<uint64_t>&, error_code&) override {}
  size_t on_body_impl(beast::string_view bytes, error_code&) override {
    (*body)({bytes.data(), bytes.size()});
    return bytes.size();
  }
  void on_chunk_header_impl(uint64_t, beast::string_view, error_code&) override {}
  size_t on_chunk_body_impl(uint64_t, beast::string_view bytes, error_code&) override {
    (*body)({bytes.data(), bytes.size()});
    return bytes.size();
  }
  void on_finish_impl(error_code&) override {}
  void on_response_impl(int, beast::string_view, int, error_code&) override {}
};

RequestParser::RequestParser() : beast_(std::make_unique<Beast>()) {}
RequestParser::~RequestParser() = default;

Request& RequestParser::request() const { return beast_->request; }

RequestParser::Step RequestParser::Parse(std::string_view* input, const Body& body) {
  beast_->body = &body;
  const bool had_head = beast_->head_done;
  while (!beast_->is_done() && !input->empty()) {
    error_code error;
    const size_t used = beast_->put(boost::asio::const_buffer(input->data(), input->size()), error);
    input->remove_prefix(used);
    if (error == beast::http::error::need_more) break;
    if (error) {
      return error == beast::http::error::header_limit ? Step::kTooLarge : Step::kBad;
    }
    if (!had_head && beast_->head_done) return Step::kHead;
  }
  if (beast_->is_done()) return Step::kDone;
  // A line between chunks, or the fields after them, may be as long as a head.
  return input->size() > kMaxHead ? Step::kTooLarge : Step::kNeedMore;
}

}  // namespace cube::agent::http
