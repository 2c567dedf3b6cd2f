#include "api/router.h"

#include <spdlog/spdlog.h>

#include <charconv>

namespace cube::api {
namespace {

bool IsVariable(const std::string& piece) { return piece.starts_with('{'); }

// Whether the pieces of a path are those of a pattern; what stands for variables.
bool Fits(const std::vector<std::string>& pattern, const std::vector<std::string>& path,
          std::map<std::string, std::string>* variables) {
  if (pattern.size() != path.size()) return false;
  for (size_t i = 0; i < path.size(); ++i) {
    if (IsVariable(pattern[i]) ? path[i].empty() : pattern[i] != path[i]) return false;
  }
  for (size_t i = 0; i < path.size(); ++i) {
    if (IsVariable(pattern[i])) {
      (*variables)[pattern[i].substr(1, pattern[i].size() - 2)] = path[i];
    }
  }
  return true;
}

}  // namespace

std::optional<std::string> Call::Query(const char* name) const {
  std::optional<std::string> value;
  for (const auto& [key, text] : query) {
    if (key == name) value = text;
  }
  return value;
}

pool::Outcome<std::optional<int64_t>> Call::QueryWhole(const char* name, int64_t least,
                                                       int64_t most) const {
  auto text = Query(name);
  if (!text) return std::optional<int64_t>();
  int64_t number = 0;
  const char* end = text->data() + text->size();
  auto [read, failed] = std::from_chars(text->data(), end, number);
  if (failed != std::errc() || read != end || number < least || number > most) {
    return pool::Refuse(pool::Fault::kInvalid, "\"%s\" is not a whole number from %lld to %lld",
                        name, static_cast<long long>(least), static_cast<long long>(most));
  }
  return std::optional<int64_t>(number);
}

pool::Outcome<bool> Call::QueryFlag(const char* name) const {
  std::string text = Query(name).value_or("false");
  if (text == "true") return true;
  if (text == "false") return false;
  return pool::Refuse(pool::Fault::kInvalid, "\"%s\" is not true or false", name);
}

pool::Outcome<std::string> Call::QueryWord(const char* name,
                                           std::initializer_list<const char*> words) const {
  std::string text = Query(name).value_or(*words.begin());
  std::string all;
  for (const char* word : words) {
    if (text == word) return text;
    if (*word != '\0') all += (all.empty() ? "" : ", ") + std::string(word);
  }
  return pool::Refuse(pool::Fault::kInvalid, "\"%s\" is \"%.64s\", and not one of %s", name,
                      text.c_str(), all.c_str());
}

void Router::Add(const char* method, const char* pattern, CallHandler handler, Access access) {
  Route route = {method, pattern, *SplitPath(pattern), std::move(handler), "", access};
  routes_.push_back(std::move(route));
}

void Router::AddUnsupported(const char* method, const char* pattern, std::string reason) {
  Route route = {method, pattern, *SplitPath(pattern), nullptr, std::move(reason), Access::kKey};
  routes_.push_back(std::move(route));
}

Task<Reply> Router::Carry(Request request) {
  Reply reply = co_await Dispatch(std::move(request));
  ++answers_[reply.status];
  co_return reply;
}

Task<Reply> Router::Dispatch(Request request) {
  auto path = SplitPath(request.path);
  if (!path) co_return Reply::Error(400, "the path is not one");
  auto query = ParseQuery(request.query);
  if (!query) co_return Reply::Error(400, "the query is not one");
  const Route* found = nullptr;
  std::string others;
  auto call = std::make_shared<Call>();
  const std::string& method = request.method == "HEAD" ? "GET" : request.method;
  for (const Route& route : routes_) {
    std::map<std::string, std::string> variables;
    if (!Fits(route.pieces, *path, &variables)) continue;
    if (route.method == method) {
      found = &route;
      call->path = std::move(variables);
      break;
    }
    others += (others.empty() ? "" : ", ") + route.method;
  }
  if (found == nullptr || found->access == Access::kKey) {
    auto admission = gate_->Admit(request);
    if (admission.refusal) {
      if (method != "GET") gate_->Audit(request, admission.key, admission.refusal->status);
      co_return std::move(*admission.refusal);
    }
    call->key = std::move(admission.key);
  }
  if (found == nullptr && others.empty()) {
    co_return Reply::Error(404, "there is no " + request.path.substr(0, 256));
  }
  if (found == nullptr) {
    Reply reply = Reply::Error(405, request.path.substr(0, 256) + " takes " + others);
    reply.headers.emplace_back("Allow", others);
    co_return reply;
  }
  if (found->handler == nullptr) co_return Reply::Error(501, found->unsupported);
  call->request = std::move(request);
  call->query = std::move(*query);
  bool changes = method != "GET";
  Answer answer = co_await found->handler(call);
  Reply reply = answer.ok() ? std::move(*answer) : ReplyOf(answer.refusal());
  if (changes) gate_->Audit(call->request, call->key, reply.status);
  if (reply.status >= 500) {
    spdlog::error("request={} {} {}: {}", call->request.id, call->request.method,
                  call->request.path.substr(0, 256), reply.body.substr(0, 1024));
  }
  co_return reply;
}

}  // namespace cube::api
