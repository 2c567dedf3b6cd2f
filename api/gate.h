#ifndef CUBE_API_GATE_H_
#define CUBE_API_GATE_H_

#include <map>
#include <memory>
#include <optional>
#include <string>

#include "api/key_store.h"
#include "api/message.h"
#include "pool/config.h"

namespace spdlog {
class logger;
}

namespace cube::api {

// The key that a request shows, which may be anything: X-API-Key, or Authorization: Bearer.
std::optional<std::string> ShownKey(const Request& request);

// Who may use the control plane, how often, and what was done. On one thread.
class Gate {
 public:
  // `keys` outlives it. `audit`: the file that says who did what.
  static Result<std::unique_ptr<Gate>> Create(KeyStore* keys, const std::string& audit);
  ~Gate();

  // An error if nobody would have to show a key where others than this host can connect.
  Status Configure(const pool::ApiConfig& config);

  struct Admission {
    std::string key;               // its id; "" where none is needed
    std::optional<Reply> refusal;  // 401, 403, 429
  };
  Admission Admit(const Request& request);
  // Something was asked for that changes things, and was answered so.
  void Audit(const Request& request, const std::string& key, unsigned status);

  // Whether requests need no key now.
  bool open() const;

 private:
  // So many requests are free; they come again with time.
  struct Bucket {
    double tokens = 0;
    uint64_t filled = 0;  // CLOCK_MONOTONIC nanoseconds
  };

  explicit Gate(KeyStore* keys) : keys_(keys) {}
  bool Take(const std::string& key);

  KeyStore* keys_;
  pool::ApiConfig config_;
  std::map<std::string, Bucket> buckets_;
  std::shared_ptr<spdlog::logger> audit_;
};

}  // namespace cube::api

#endif  // CUBE_API_GATE_H_
