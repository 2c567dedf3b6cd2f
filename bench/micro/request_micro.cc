// Requests as they come in, by the control socket and by HTTP, and answers as they go out.
#include <benchmark/benchmark.h>

#include <cstdlib>
#include <string>
#include <string_view>

#include "base/json_writer.h"
#include "guestkernel/agent/http/request_parser.h"
#include "pool/request_fields.h"

namespace {

void BM_ControlRequest(benchmark::State& state) {
  constexpr std::string_view kLine =
      R"({"op":"sandbox.create","template":"base","timeout_seconds":300,"on_timeout":"pause",)"
      R"("metadata":{"user":"one","job":"two"},"environment":["A=1","B=2"],"token":"0123456789"})";
  for (auto _ : state) {
    auto fields = cube::pool::RequestFields::Parse(kLine);
    if (!fields.ok()) abort();
    if (!fields->String("op").ok() || !fields->String("template").ok() ||
        !fields->Number("timeout_seconds", UINT32_MAX).ok() || !fields->String("on_timeout").ok() ||
        !fields->StringMap("metadata").ok() || !fields->Strings("environment").ok() ||
        !fields->String("token").ok() || !fields->Finish().ok()) {
      abort();
    }
  }
}
BENCHMARK(BM_ControlRequest);

void BM_JsonAnswer(benchmark::State& state) {
  for (auto _ : state) {
    cube::JsonWriter json;
    json.BeginObject().Key("ok").Bool(true).Key("sandboxes").BeginArray();
    for (int i = 0; i < 10; ++i) {
      json.BeginObject().Key("id").String("i0123456789abcdef").Key("state").String("running");
      json.Key("pid").Int(i).Key("seconds").Double(1.25).EndObject();
    }
    json.EndArray().EndObject();
    benchmark::DoNotOptimize(json.text().data());
  }
}
BENCHMARK(BM_JsonAnswer);

void BM_HttpRequest(benchmark::State& state) {
  using cube::agent::http::RequestParser;
  constexpr std::string_view kRequest =
      "POST /process.Process/List HTTP/1.1\r\nHost: 49983-i0123456789abcdef.example.org\r\n"
      "User-Agent: connect-es/2.0.0\r\nAccept: */*\r\nContent-Type: application/json\r\n"
      "Connect-Protocol-Version: 1\r\nConnect-Timeout-Ms: 60000\r\nX-Access-Token: 0123456789\r\n"
      "Authorization: Basic dXNlcjo=\r\nContent-Length: 2\r\n\r\n{}";
  size_t body = 0;
  for (auto _ : state) {
    RequestParser parser;
    std::string_view input = kRequest;
    RequestParser::Step step;
    do {
      step = parser.Parse(&input, [&](std::string_view bytes) { body += bytes.size(); });
    } while (step == RequestParser::Step::kHead);
    if (step != RequestParser::Step::kDone) abort();
  }
  benchmark::DoNotOptimize(body);
  state.SetBytesProcessed(static_cast<int64_t>(state.iterations() * kRequest.size()));
}
BENCHMARK(BM_HttpRequest);

}  // namespace
