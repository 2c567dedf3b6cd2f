// Report::Parse over any bytes: what it accepts is written as what it accepts again.
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "bench/report/html_page.h"
#include "bench/report/report.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  auto report = cube::bench::Report::Parse({reinterpret_cast<const char*>(data), size});
  if (!report.ok()) return 0;
  auto again = cube::bench::Report::Parse(report->ToJson());
  if (!again.ok() || again->measurements.size() != report->measurements.size()) abort();
  // Whatever the figures are, there is a page of them.
  if (cube::bench::HtmlPage(*report).find("</html>") == std::string::npos) abort();
  return 0;
}
