#include "api/network_request.h"

#include <arpa/inet.h>

#include <algorithm>
#include <boost/json.hpp>
#include <charconv>

namespace cube::api {
namespace {

constexpr char kEverything[] = "0.0.0.0/0";
constexpr size_t kMaxRules = 256;
constexpr size_t kMaxName = 253;

}  // namespace

bool IsAddressRange(const std::string& text) {
  size_t slash = text.find('/');
  in_addr four;
  in6_addr six;
  std::string address = text.substr(0, slash);
  int most = 0;
  if (inet_pton(AF_INET, address.c_str(), &four) == 1) most = 32;
  if (inet_pton(AF_INET6, address.c_str(), &six) == 1) most = 128;
  if (most == 0) return false;
  if (slash == std::string::npos) return true;
  int bits = 0;
  const char* end = text.data() + text.size();
  auto [read, failed] = std::from_chars(text.data() + slash + 1, end, bits);
  return failed == std::errc() && read == end && bits >= 0 && bits <= most;
}

bool IsDomainPattern(const std::string& text) {
  std::string name = text.starts_with("*.") ? text.substr(2) : text;
  if (name == "*") return true;
  if (name.empty() || name.size() > kMaxName || name.starts_with('.') || name.ends_with('.')) {
    return false;
  }
  bool has_letter = false;
  for (char c : name) {
    bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
    has_letter |= letter;
    if (!letter && !(c >= '0' && c <= '9') && c != '-' && c != '.' && c != '_') return false;
  }
  return has_letter && name.find("..") == std::string::npos;
}

NetworkRequest ReadNetwork(Fields* outer, Fields* network) {
  NetworkRequest request;
  outer->Flag("allow_internet_access", &request.allow_internet_access);
  if (network != nullptr) {
    std::optional<std::vector<std::string>> allow, deny;
    std::optional<std::vector<int64_t>> https;
    std::optional<bool> is_public;
    std::optional<std::string> mask;
    network->Texts("allowOut", &allow, kMaxRules);
    network->Texts("denyOut", &deny, kMaxRules);
    network->Flag("allowPublicTraffic", &is_public);
    network->Text("maskRequestHost", &mask, 1024);
    network->Wholes("httpsPorts", 1, 65535, &https);
    auto proxy = network->Object("egressProxy");
    auto rules = network->Object("rules");
    request.policy.allow_out = std::move(allow).value_or(std::vector<std::string>());
    request.policy.deny_out = std::move(deny).value_or(std::vector<std::string>());
    request.allow_public_traffic = is_public.value_or(true);
    request.mask_host = mask.value_or("");
    if (proxy) request.unsupported = "egressProxy";
    if (rules && !rules->Names().empty()) request.unsupported = "rules";
    if (https && !https->empty()) request.unsupported = "httpsPorts";
    bool is_masked = std::all_of(request.mask_host.begin(), request.mask_host.end(),
                                 [](char c) { return c > ' ' && c < 0x7f; });
    if (!is_masked) network->Fail("maskRequestHost", "is not a host");
    boost::json::object kept = network->object();
    if (proxy) kept["egressProxy"] = nullptr;
    if (!kept.empty()) request.text = boost::json::serialize(kept);
  }
  auto& policy = request.policy;
  if (request.allow_internet_access && !*request.allow_internet_access) {
    policy.deny_out.push_back(kEverything);
  }
  bool denies_all = std::find(policy.deny_out.begin(), policy.deny_out.end(), kEverything) !=
                    policy.deny_out.end();
  Fields* named = network != nullptr ? network : outer;
  for (const std::string& each : policy.deny_out) {
    if (!IsAddressRange(each)) {
      named->Fail("denyOut",
                  "has \"" + each.substr(0, 100) + "\", which is not an address or range");
    }
  }
  for (const std::string& each : policy.allow_out) {
    if (IsAddressRange(each)) continue;
    if (!IsDomainPattern(each)) {
      named->Fail("allowOut", "has \"" + each.substr(0, 100) +
                                  "\", which is not an address, a range, or a domain");
    } else if (!denies_all) {
      named->Fail("allowOut", "has the domain \"" + each.substr(0, 100) +
                                  "\", which takes 0.0.0.0/0 in denyOut");
    }
  }
  return request;
}

std::string MergeNetwork(const std::string& created, const std::string& updated) {
  namespace json = boost::json;
  json::error_code failed;
  json::value before = json::parse(created.empty() ? "{}" : created, failed);
  json::value after = json::parse(updated.empty() ? "{}" : updated, failed);
  if (!before.is_object() || !after.is_object()) return updated;
  json::object merged;
  for (const char* name : {"allowPublicTraffic", "maskRequestHost", "httpsPorts"}) {
    if (const json::value* kept = before.get_object().if_contains(name)) merged[name] = *kept;
  }
  for (const char* name : {"allowOut", "denyOut", "rules", "egressProxy"}) {
    if (const json::value* now = after.get_object().if_contains(name)) merged[name] = *now;
  }
  return merged.empty() ? "" : json::serialize(merged);
}

}  // namespace cube::api
