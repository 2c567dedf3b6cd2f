#ifndef CUBE_API_ROUTER_H_
#define CUBE_API_ROUTER_H_

#include <functional>
#include <initializer_list>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "api/gate.h"
#include "api/message.h"
#include "api/url.h"
#include "pool/async.h"

namespace cube::api {

using pool::Task;

// A request on its way to its handler.
class Call {
 public:
  Request request;
  std::string key;                          // whose it is; "": anybody's
  QueryFields query;                        // decoded
  std::map<std::string, std::string> path;  // what stood in place of {NAME}; decoded

  // A field of the query, or nothing; the last of several.
  std::optional<std::string> Query(const char* name) const;
  // The same as a number; kInvalid if it is none from `least` to `most`.
  pool::Outcome<std::optional<int64_t>> QueryWhole(const char* name, int64_t least,
                                                   int64_t most) const;
  // The same as true or false, which it is if it is not there; kInvalid if it is neither.
  pool::Outcome<bool> QueryFlag(const char* name) const;
  // The same as one of those words, the first of which it is if it is not there; else kInvalid.
  pool::Outcome<std::string> QueryWord(const char* name,
                                       std::initializer_list<const char*> words) const;
};

using Answer = pool::Outcome<Reply>;
using CallHandler = std::function<Task<Answer>(std::shared_ptr<Call>)>;

// Who may use a route: who shows an API key; everybody; whoever has a token that the handler knows.
enum class Access { kKey, kPublic, kToken };

// The control plane's table of routes. On one thread.
class Router {
 public:
  // `gate` outlives it.
  explicit Router(Gate* gate) : gate_(gate) {}

  // `pattern`: "/sandboxes/{sandboxID}". Of two that fit the one added first is taken.
  void Add(const char* method, const char* pattern, CallHandler handler,
           Access access = Access::kKey);
  // What is known and not done: 501 with the reason.
  void AddUnsupported(const char* method, const char* pattern, std::string reason);

  Task<Reply> Carry(Request request);

  struct Route {
    std::string method;
    std::string pattern;
    std::vector<std::string> pieces;
    CallHandler handler;
    std::string unsupported;
    Access access = Access::kKey;
  };
  const std::vector<Route>& routes() const { return routes_; }
  // Answers so far by status.
  const std::map<unsigned, uint64_t>& answers() const { return answers_; }

 private:
  Task<Reply> Dispatch(Request request);

  Gate* gate_;
  std::vector<Route> routes_;
  std::map<unsigned, uint64_t> answers_;
};

}  // namespace cube::api

#endif  // CUBE_API_ROUTER_H_
