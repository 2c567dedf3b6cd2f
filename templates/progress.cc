#include "templates/progress.h"

#include <fcntl.h>

#include <cstdio>

#include "base/byte_io.h"
#include "base/json_writer.h"
#include "base/monotonic.h"

namespace cube::templates {
namespace {

void Emit(const JsonWriter& json) {
  printf("%s\n", json.text().c_str());
  fflush(stdout);
}

}  // namespace

Result<Progress> Progress::Create(const std::string& log, bool json) {
  CUBE_ASSIGN(UniqueFd file, OpenFile(log, O_WRONLY | O_CREAT | O_TRUNC, 0644));
  return Progress(std::move(file), log, json);
}

void Progress::Log(std::string_view text) {
  // A log that cannot be written is no reason to give up what it is about.
  (void)WriteAll(file_.get(), {reinterpret_cast<const uint8_t*>(text.data()), text.size()}, "log");
}

void Progress::Begin(size_t number, size_t of, const std::string& text) {
  number_ = number;
  of_ = of;
  begun_ = MonotonicNow();
  const std::string line = Format("[%zu/%zu] %s\n", number, of, text.c_str());
  Log(line);
  if (!json_) {
    fputs(line.c_str(), stderr);
    return;
  }
  JsonWriter event;
  event.BeginObject().Key("event").String("step").Key("number").Uint(number).Key("of").Uint(of);
  event.Key("text").String(text).EndObject();
  Emit(event);
}

void Progress::Output(std::string_view text) {
  if (text.empty()) return;
  Log(text);
  in_line_ = text.back() != '\n';
  if (!json_) {
    fwrite(text.data(), 1, text.size(), stderr);
    return;
  }
  JsonWriter event;
  event.BeginObject().Key("event").String("output").Key("text").String(text).EndObject();
  Emit(event);
}

void Progress::End(bool cached) {
  const double ms = Milliseconds(begun_, MonotonicNow());
  const std::string line = Format("%s[%zu/%zu] %s\n", in_line_ ? "\n" : "", number_, of_,
                                  cached ? "cached" : Format("done in %.1f s", ms / 1e3).c_str());
  in_line_ = false;
  Log(line);
  if (!json_) {
    fputs(line.c_str(), stderr);
    return;
  }
  JsonWriter event;
  event.BeginObject().Key("event").String("done").Key("number").Uint(number_);
  event.Key("cached").Bool(cached).Key("ms").Double(ms).EndObject();
  Emit(event);
}

void Progress::Note(const std::string& line) { Log(line + "\n"); }

}  // namespace cube::templates
