// Files of steps, their variables, and .dockerignore.
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "templates/ignore_rules.h"
#include "templates/steps.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace cube::templates;
  std::string_view text(reinterpret_cast<const char*>(data), size);
  auto list = StepList::Parse(text);
  if (list.ok()) {
    if (list->steps.empty() || list->steps[0].kind != StepKind::kFrom) abort();
    for (const Step& step : list->steps) {
      for (const std::string& word : step.words) (void)ExpandVariables(word, {"A=1", "BB=$A"});
    }
  }
  auto rules = IgnoreRules::Parse(text);
  if (rules.ok()) (void)rules->Ignores(text.substr(0, 200));
  return 0;
}
