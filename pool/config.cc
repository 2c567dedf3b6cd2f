#include "pool/config.h"

#define TOML_EXCEPTIONS 0
#define TOML_ENABLE_FORMATTERS 0
#include <toml++/toml.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "base/byte_io.h"

namespace cube::pool {
namespace {

constexpr size_t kMaxFile = 1 << 20;
constexpr size_t kMaxString = 4000;
constexpr size_t kMaxTemplates = 1000;
constexpr size_t kAutomaticDigits = 32;

// One table of the file. What was asked for is what it may hold: Finish() finds the rest.
class Section {
 public:
  Section(const toml::table& table, const std::string& name, std::string prefix)
      : table_(table), name_(name), prefix_(std::move(prefix)) {}

  void String(std::string_view key, std::string* value) {
    const toml::node* node = Find(key);
    if (node == nullptr) return;
    auto text = node->value_exact<std::string>();
    if (!text || text->empty() || text->size() > kMaxString ||
        text->find('\0') != std::string::npos) {
      Fail(*node, key, Format("is not a string of 1 to %zu characters", kMaxString));
      return;
    }
    *value = *text;
  }

  template <typename T>
  void Whole(std::string_view key, uint64_t least, uint64_t most, T* value) {
    const toml::node* node = Find(key);
    if (node == nullptr) return;
    auto number = node->value_exact<int64_t>();
    if (!number || *number < 0 || static_cast<uint64_t>(*number) < least ||
        static_cast<uint64_t>(*number) > most) {
      Fail(*node, key,
           Format("is not a whole number from %llu to %llu", static_cast<unsigned long long>(least),
                  static_cast<unsigned long long>(most)));
      return;
    }
    *value = static_cast<T>(*number);
  }

  void Real(std::string_view key, double least, double most, double* value) {
    const toml::node* node = Find(key);
    if (node == nullptr) return;
    auto number = node->is_number() ? node->value<double>() : std::nullopt;
    if (!number || !std::isfinite(*number) || *number < least || *number > most) {
      Fail(*node, key, Format("is not a number from %g to %g", least, most));
      return;
    }
    *value = *number;
  }

  // A word of `words`; its place among them.
  void Word(std::string_view key, const std::vector<std::string>& words, size_t* value) {
    const toml::node* node = Find(key);
    if (node == nullptr) return;
    auto text = node->value_exact<std::string>();
    std::string all;
    for (size_t i = 0; i < words.size(); ++i) {
      if (text && *text == words[i]) {
        *value = i;
        return;
      }
      all += (i == 0 ? "" : ", ") + words[i];
    }
    Fail(*node, key, "is none of " + all);
  }

  void Bool(std::string_view key, bool* value) {
    const toml::node* node = Find(key);
    if (node == nullptr) return;
    auto given = node->value_exact<bool>();
    if (given) *value = *given;
    if (!given) Fail(*node, key, "is neither true nor false");
  }

  void Strings(std::string_view key, std::vector<std::string>* values) {
    const toml::node* node = Find(key);
    if (node == nullptr) return;
    const toml::array* array = node->as_array();
    std::vector<std::string> texts;
    for (size_t i = 0; array != nullptr && i < array->size(); ++i) {
      auto text = array->get(i)->value_exact<std::string>();
      if (text && text->size() <= kMaxString) texts.push_back(*text);
    }
    if (array == nullptr || texts.size() != array->size() || texts.size() > kMaxTemplates) {
      Fail(*node, key, Format("is not a list of at most %zu strings", kMaxTemplates));
      return;
    }
    *values = std::move(texts);
  }

  // A table within it, or null.
  const toml::table* Table(std::string_view key) {
    const toml::node* node = Find(key);
    if (node == nullptr) return nullptr;
    if (!node->is_table()) Fail(*node, key, "is not a table");
    return node->as_table();
  }

  Status Finish() {
    for (const auto& [key, node] : table_) {
      if (std::find(known_.begin(), known_.end(), key.str()) != known_.end()) continue;
      Fail(node, key.str().substr(0, 64), "is not known");
    }
    return failed_;
  }
  bool ok() const { return failed_.ok(); }

  void Fail(const toml::node& node, std::string_view key, const std::string& what) {
    if (!failed_.ok()) return;
    failed_ = Errorf("%s:%u: %s%s %s", name_.c_str(), node.source().begin.line, prefix_.c_str(),
                     std::string(key).c_str(), what.c_str());
  }

 private:
  const toml::node* Find(std::string_view key) {
    known_.emplace_back(key);
    return table_.get(key);
  }

  const toml::table& table_;
  const std::string& name_;
  std::string prefix_;
  std::vector<std::string> known_;
  Status failed_;
};

Status ReadPool(const toml::table& table, const std::string& name, const std::string& prefix,
                PoolConfig* pool) {
  Section section(table, name, prefix);
  section.Whole("size", 0, 1000, &pool->size);
  section.Whole("concurrency", 1, 64, &pool->concurrency);
  section.Whole("refill_per_second", 1, 10000, &pool->refill_per_second);
  return section.Finish();
}

Status ReadNode(const toml::table& table, const std::string& name, Config* config) {
  static const std::vector<std::string> kLevels = {"trace",   "debug", "info",
                                                   "warning", "error", "off"};
  Section section(table, name, "node.");
  section.String("home", &config->home);
  section.String("vmm", &config->vmm);
  section.String("socket", &config->socket);
  size_t level = 2;
  section.Word("log_level", kLevels, &level);
  config->log_level = kLevels[level];
  for (const auto& [key, path] :
       {std::pair("home", &config->home), std::pair("socket", &config->socket)}) {
    if (path->empty() || (*path)[0] == '/') continue;
    section.Fail(*table.get(key), key, "is not an absolute path");
  }
  return section.Finish();
}

Status ReadCapacity(const toml::table& table, const std::string& name, Config* config) {
  Section section(table, name, "capacity.");
  section.Whole("memory_mib", 0, 64ull << 20, &config->memory_mib);
  section.Whole("reserve_mib", 64, 1ull << 20, &config->reserve_mib);
  section.Real("memory_overcommit", 0.1, 1000, &config->memory_overcommit);
  section.Real("cpu_overcommit", 0.1, 10000, &config->cpu_overcommit);
  section.Whole("max_sandboxes", 1, 100000, &config->max_sandboxes);
  return section.Finish();
}

Status ReadSandbox(const toml::table& table, const std::string& name, Config* config) {
  constexpr uint64_t kMonth = 31 * 86400;
  Section section(table, name, "sandbox.");
  section.Whole("timeout_seconds", 1, kMonth, &config->timeout_seconds);
  section.Whole("max_timeout_seconds", 1, kMonth, &config->max_timeout_seconds);
  size_t action = 0;
  section.Word("on_timeout", {"kill", "pause"}, &action);
  config->on_timeout = action == 0 ? OnTimeout::kKill : OnTimeout::kPause;
  section.Whole("ready_seconds", 1, 600, &config->ready_seconds);
  section.Whole("keep_dead_seconds", 0, kMonth, &config->keep_dead_seconds);
  section.Whole("max_chain", 1, 64, &config->max_chain);
  if (section.ok() && config->timeout_seconds > config->max_timeout_seconds) {
    return Errorf("%s:%u: sandbox.timeout_seconds of %u is more than max_timeout_seconds of %u",
                  name.c_str(), table.source().begin.line, config->timeout_seconds,
                  config->max_timeout_seconds);
  }
  return section.Finish();
}

Status ReadApi(const toml::table& table, const std::string& name, ApiConfig* api) {
  Section section(table, name, "api.");
  section.String("listen", &api->listen);
  section.String("domain", &api->domain);
  size_t auth = static_cast<size_t>(api->auth);
  section.Word("auth", {"auto", "required", "off"}, &auth);
  api->auth = static_cast<ApiAuth>(auth);
  section.String("tls_certificate", &api->tls_certificate);
  section.String("tls_key", &api->tls_key);
  section.Whole("max_connections", 1, 100000, &api->max_connections);
  section.Whole("max_header_bytes", 1024, 1 << 20, &api->max_header_bytes);
  section.Whole("max_body_bytes", 1024, 1 << 30, &api->max_body_bytes);
  section.Whole("header_seconds", 1, 3600, &api->header_seconds);
  section.Whole("idle_seconds", 1, 86400, &api->idle_seconds);
  section.Whole("requests_per_second", 0, 1000000, &api->requests_per_second);
  if (section.ok() && api->tls_certificate.empty() != api->tls_key.empty()) {
    return Errorf("%s:%u: api.tls_certificate and api.tls_key go together", name.c_str(),
                  table.source().begin.line);
  }
  return section.Finish();
}

Status ReadJail(const toml::table& table, const std::string& name, JailConfig* jail) {
  Section section(table, name, "jail.");
  section.Whole("first_uid", 1000, 2'000'000'000, &jail->first_uid);
  section.Whole("uids", 2, 1'000'000, &jail->uids);
  section.Whole("processes", 16, 4096, &jail->processes);
  section.Whole("io_mib_per_second", 0, 1 << 20, &jail->io_mib_per_second);
  return section.Finish();
}

Status ReadNetwork(const toml::table& table, const std::string& name, NetworkConfig* network) {
  Section section(table, name, "network.");
  section.Bool("enabled", &network->enabled);
  section.String("uplink", &network->uplink);
  section.String("prefix", &network->prefix);
  section.Strings("addresses", &network->addresses);
  section.Strings("exceptions", &network->exceptions);
  section.Strings("dns", &network->dns);
  section.String("host_network", &network->host_network);
  section.Whole("first_port", 1024, 65535, &network->first_port);
  section.Whole("last_port", 1024, 65535, &network->last_port);
  section.Whole("max_flows", 1, 65536, &network->max_flows);
  section.Whole("taps", 0, 1000, &network->taps);
  section.Bool("ipv6", &network->ipv6);
  return section.Finish();
}

Status ReadAll(const toml::table& table, const std::string& name, Config* config) {
  Section file(table, name, "");
  if (const auto* node = file.Table("node")) CUBE_TRY(ReadNode(*node, name, config));
  if (const auto* capacity = file.Table("capacity")) {
    CUBE_TRY(ReadCapacity(*capacity, name, config));
  }
  if (const auto* sandbox = file.Table("sandbox")) CUBE_TRY(ReadSandbox(*sandbox, name, config));
  if (const auto* network = file.Table("network")) {
    CUBE_TRY(ReadNetwork(*network, name, &config->network));
  }
  if (const auto* pressure = file.Table("pressure")) {
    Section section(*pressure, name, "pressure.");
    section.Real("psi_some_avg10", 0.1, 100, &config->psi_some_avg10);
    CUBE_TRY(section.Finish());
  }
  if (const auto* api = file.Table("api")) CUBE_TRY(ReadApi(*api, name, &config->api));
  if (const auto* jail = file.Table("jail")) CUBE_TRY(ReadJail(*jail, name, &config->jail));
  if (const auto* pool = file.Table("pool")) {
    CUBE_TRY(ReadPool(*pool, name, "pool.", &config->pool));
  }
  const auto* templates = file.Table("template");
  CUBE_TRY(file.Finish());
  if (templates == nullptr) return OkStatus();
  for (const auto& [key, node] : *templates) {
    std::string each(key.str().substr(0, 64));
    if (!node.is_table() || config->templates.size() >= kMaxTemplates) {
      return Errorf("%s:%u: template.%s is not a table, or the %zuth", name.c_str(),
                    node.source().begin.line, each.c_str(), kMaxTemplates + 1);
    }
    // What it does not say is as in [pool].
    PoolConfig pool = config->pool;
    CUBE_TRY(ReadPool(*node.as_table(), name, "template." + each + ".", &pool));
    config->templates[std::string(key.str())] = pool;
  }
  return OkStatus();
}

}  // namespace

PoolConfig Config::PoolOf(const std::string& name) const {
  auto found = templates.find(name);
  if (found != templates.end()) return found->second;
  PoolConfig defaults = pool;
  if (name.starts_with("run-") && name.size() == 4 + kAutomaticDigits) defaults.size = 0;
  return defaults;
}

Result<Config> Config::Parse(std::string_view text, const std::string& name) {
  if (text.size() > kMaxFile) {
    return Errorf("%s: %zu bytes are more than the %zu a configuration may have", name.c_str(),
                  text.size(), kMaxFile);
  }
  // The library takes some letters beyond ASCII for what cannot be.
  size_t line = 1;
  for (char c : text) {
    if (c == '\n') ++line;
    if (static_cast<unsigned char>(c) >= 0x80) {
      return Errorf("%s:%zu: a byte 0x%02x, which is not ASCII", name.c_str(), line,
                    static_cast<unsigned char>(c));
    }
  }
  toml::parse_result parsed = toml::parse(text, std::string_view(name));
  if (!parsed) {
    return Errorf("%s:%u: %s", name.c_str(), parsed.error().source().begin.line,
                  std::string(parsed.error().description()).c_str());
  }
  Config config;
  CUBE_TRY(ReadAll(parsed.table(), name, &config));
  return config;
}

Result<Config> Config::Load(const std::string& path) {
  CUBE_ASSIGN(std::string text, ReadSmallFile(path, kMaxFile));
  return Parse(text, path);
}

}  // namespace cube::pool
