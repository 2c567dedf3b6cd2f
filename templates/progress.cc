#include "templates/progress.h"

#include <fcntl.h>

#include <algorithm>
#include <cstdio>
#include <utility>

#include "base/byte_io.h"
#include "base/json_writer.h"
#include "base/monotonic.h"

namespace cube::templates {
namespace {

void Emit(const JsonWriter& json) {
  printf("%s\n", json.text().c_str());
  fflush(stdout);
}

void EmitText(const std::string& text) {
  JsonWriter event;
  event.BeginObject().Key("event").String("output").Key("text").String(text).EndObject();
  Emit(event);
}

// Where the last character of a text in UTF-8 begins, if it is of more than one byte; else its
// size.
size_t StartOfLast(const std::string& text) {
  for (size_t back = 1; back <= std::min<size_t>(text.size(), 4); ++back) {
    auto byte = static_cast<unsigned char>(text[text.size() - back]);
    if (byte < 0x80) return text.size();
    if (byte >= 0xc0) return text.size() - back;
  }
  return text.size();
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
  EmitOutput(text);
}

void Progress::EmitOutput(std::string_view text) {
  std::string all = std::exchange(cut_, "") + std::string(text);
  // A character whose end has not come yet waits for it.
  const size_t start = StartOfLast(all);
  if (start < all.size() && start + 4 > all.size() && Utf8Length(all.substr(start)) == 0) {
    cut_ = all.substr(start);
    all.resize(start);
  }
  if (all.empty()) return;
  EmitText(all);
}

void Progress::End(bool cached) {
  if (!cut_.empty()) EmitText(std::exchange(cut_, ""));
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
