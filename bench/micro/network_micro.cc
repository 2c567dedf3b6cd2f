// A sandbox's policy on its way into the kernel, and what comes to the HTTP listener.
#include <benchmark/benchmark.h>
#include <bpf/bpf.h>

#include <cstdlib>
#include <string>
#include <string_view>

#include "api/http_parser.h"
#include "base/unique_fd.h"
#include "net/bpf/maps.h"
#include "net/rule_table.h"

namespace {

using cube::net::CompilePolicy;
using cube::net::Policy;
using cube::net::RuleTable;

Policy HundredRules() {
  std::vector<std::string> allow, deny = {"0.0.0.0/0"};
  for (int i = 0; i < 99; ++i) allow.push_back("20." + std::to_string(i) + ".7.0/24:443/tcp");
  auto policy = Policy::Parse(allow, deny, true);
  if (!policy.ok()) abort();
  return *policy;
}

void BM_PolicyCompile(benchmark::State& state) {
  const Policy policy = HundredRules();
  for (auto _ : state) {
    auto rules = CompilePolicy(policy);
    if (!rules.ok()) abort();
    benchmark::DoNotOptimize(rules->data());
  }
}
BENCHMARK(BM_PolicyCompile);

// The new rules under the next generation, then the old ones away, as for a sandbox that runs.
// Needs CAP_BPF.
void BM_PolicyMapUpdate(benchmark::State& state) {
  bpf_map_create_opts options = {.sz = sizeof options, .map_flags = BPF_F_NO_PREALLOC};
  cube::UniqueFd map(bpf_map_create(BPF_MAP_TYPE_LPM_TRIE, "rules",
                                    sizeof(cube::net::bpf::rule_key), sizeof(cube::net::bpf::rule),
                                    CUBE_MAX_RULES, &options));
  if (!map.valid()) {
    state.SkipWithError("no map of BPF: not allowed");
    return;
  }
  auto rules = CompilePolicy(HundredRules());
  if (!rules.ok()) abort();
  RuleTable table(map.get());
  uint32_t generation = 1;
  if (!table.Add(generation, *rules).ok()) abort();
  for (auto _ : state) {
    if (!table.Add(generation + 1, *rules).ok()) abort();
    table.Remove(generation, *rules);
    ++generation;
  }
}
BENCHMARK(BM_PolicyMapUpdate);

void BM_HttpListenerHeader(benchmark::State& state) {
  constexpr std::string_view kRequest =
      "POST /sandboxes HTTP/1.1\r\nHost: api.example.org\r\nUser-Agent: e2b-js-sdk/2.0.0\r\n"
      "Accept: */*\r\nContent-Type: application/json\r\nX-API-Key: e2b_0123456789abcdef\r\n"
      "Accept-Encoding: gzip, deflate\r\nConnection: keep-alive\r\nContent-Length: 62\r\n\r\n";
  for (auto _ : state) {
    cube::api::HeaderScan scan;
    if (scan.Look(kRequest) != cube::api::HeaderScan::Found::kWhole) abort();
    cube::api::RequestParser parser;
    if (cube::api::ParseRequestHeader(kRequest.substr(0, scan.size()), &parser)) abort();
    benchmark::DoNotOptimize(parser.get().method());
  }
  state.SetBytesProcessed(static_cast<int64_t>(state.iterations() * kRequest.size()));
}
BENCHMARK(BM_HttpListenerHeader);

}  // namespace
