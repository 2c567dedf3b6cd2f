#include "api/gate.h"

#include <spdlog/sinks/rotating_file_sink.h>
#include <spdlog/spdlog.h>
#include <strings.h>
#include <sys/stat.h>

#include <algorithm>

#include "api/date_text.h"
#include "api/sandbox_address.h"
#include "api/server.h"
#include "base/json_writer.h"
#include "base/monotonic.h"
#include "pool/events.h"

namespace cube::api {
namespace {

constexpr size_t kAuditBytes = 16 << 20;
constexpr size_t kAuditFiles = 8;
constexpr size_t kMaxKey = 512;

}  // namespace

std::optional<std::string> ShownKey(const Request& request) {
  if (const std::string* key = request.headers.Find("x-api-key")) return *key;
  const std::string* authorization = request.headers.Find("authorization");
  constexpr std::string_view kBearer = "bearer ";
  if (authorization == nullptr ||
      strncasecmp(authorization->c_str(), kBearer.data(), kBearer.size()) != 0) {
    return std::nullopt;
  }
  return authorization->substr(kBearer.size());
}

Gate::~Gate() = default;

Result<std::unique_ptr<Gate>> Gate::Create(KeyStore* keys, const std::string& audit) {
  std::unique_ptr<Gate> gate(new Gate(keys));
  mode_t old = umask(0077);
  std::string failed;
  spdlog::set_error_handler([](const std::string&) {});
  try {
    auto sink =
        std::make_shared<spdlog::sinks::rotating_file_sink_st>(audit, kAuditBytes, kAuditFiles);
    gate->audit_ = std::make_shared<spdlog::logger>("audit", std::move(sink));
  } catch (const spdlog::spdlog_ex& error) {
    failed = error.what();
  }
  umask(old);
  if (!failed.empty()) return Errorf("%s: %s", audit.c_str(), failed.c_str());
  gate->audit_->set_pattern("%v");
  gate->audit_->set_level(spdlog::level::trace);
  gate->audit_->flush_on(spdlog::level::trace);
  return gate;
}

Status Gate::Configure(const pool::ApiConfig& config) {
  if (config.auth == pool::ApiAuth::kOff && config.listen != "off" && !IsLoopback(config.listen)) {
    return Errorf("api.auth is off, and api.listen %s is not of this host alone",
                  config.listen.c_str());
  }
  config_ = config;
  return OkStatus();
}

bool Gate::open() const {
  if (config_.auth == pool::ApiAuth::kOff) return true;
  return config_.auth == pool::ApiAuth::kAuto && keys_->empty() && IsLoopback(config_.listen);
}

bool Gate::Take(const std::string& key) {
  if (config_.requests_per_second == 0) return true;
  double rate = config_.requests_per_second;
  Bucket& bucket = buckets_[key];
  uint64_t now = MonotonicNow();
  // A second's worth at once.
  bucket.tokens =
      bucket.filled == 0
          ? rate
          : std::min(rate, bucket.tokens + Milliseconds(bucket.filled, now) * rate / 1000);
  bucket.filled = now;
  if (bucket.tokens < 1) return false;
  bucket.tokens -= 1;
  return true;
}

Gate::Admission Gate::Admit(const Request& request) {
  Admission admission;
  if (open()) {
    // A page in a browser of this host is not its user: it says where it is from, or, if its name
    // was made to lead here, calls this host by that.
    const std::string* origin = request.headers.Find("origin");
    const std::string* host = request.headers.Find("host");
    std::string here = host == nullptr ? "" : *host;
    bool is_ours = origin == nullptr || *origin == "http://" + here || *origin == "https://" + here;
    std::string name(HostName(here));
    bool is_named =
        IsLocalName(name) ||
        (!config_.domain.empty() && (name == config_.domain || name == "api." + config_.domain));
    if (!is_ours || (host != nullptr && !is_named)) {
      admission.refusal =
          Reply::Error(403,
                       "without API keys requests are taken from this host's programs only; "
                       "`cube key create NAME` makes a key");
    }
    return admission;
  }
  auto shown = ShownKey(request);
  if (!shown || shown->empty()) {
    admission.refusal = Reply::Error(401, "an API key is missing: X-API-Key");
    return admission;
  }
  const KeyRecord* key = shown->size() > kMaxKey ? nullptr : keys_->Find(*shown);
  if (key == nullptr) {
    admission.refusal = Reply::Error(401, "the API key is not valid");
    return admission;
  }
  admission.key = key->id;
  if (!Take(key->id)) {
    admission.refusal =
        Reply::Error(429, Format("more than %u requests a second", config_.requests_per_second));
    admission.refusal->headers.emplace_back("Retry-After", "1");
  }
  return admission;
}

void Gate::Audit(const Request& request, const std::string& key, unsigned status) {
  JsonWriter line;
  line.BeginObject().Key("time").String(DateText(pool::WallClockMs()));
  line.Key("request").String(request.id).Key("key").String(key).Key("peer").String(request.peer);
  line.Key("method").String(request.method).Key("path").String(request.path.substr(0, 512));
  line.Key("status").Uint(status).EndObject();
  audit_->info(line.text());
}

}  // namespace cube::api
