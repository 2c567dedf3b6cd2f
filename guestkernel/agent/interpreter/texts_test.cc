#include <gtest/gtest.h>

#include <string>

#include "guestkernel/agent/interpreter/control_lines.h"
#include "guestkernel/agent/interpreter/language.h"
#include "guestkernel/agent/interpreter/output_text.h"

namespace cube::agent::interpreter {
namespace {

struct Log : ControlLines::Sink {
  void OnReady(int32_t pid) override { text += "<ready " + std::to_string(pid) + ">"; }
  void OnEnd() override { text += "<end>"; }
  void OnEvents(std::string_view bytes) override { text += bytes; }
  std::string text;
};

TEST(ControlLines, PassesEventsOnAndKeepsItsOwn) {
  const std::string input =
      "{\"type\":\"ready\",\"pid\":42}\n"
      "{\"type\":\"result\",\"text\":\"1\"}\n"
      "{\"type\":\"end_of_execution\"}\n"
      "{\"type\":\"end_of_execution\",\"more\":1}\n"
      "{\"type\":\"error\"}\n"
      "{\"type\":\"ready\",\"pid\":-5}\n"
      "junk\n{\"type\":\"end_of_execution\"}\n";
  const std::string expected =
      "<ready 42>{\"type\":\"result\",\"text\":\"1\"}\n<end>"
      "{\"type\":\"end_of_execution\",\"more\":1}\n{\"type\":\"error\"}\n<ready 0>junk\n<end>";
  // Torn apart in every way.
  for (size_t size = 1; size <= input.size(); ++size) {
    Log log;
    ControlLines lines;
    for (size_t at = 0; at < input.size(); at += size) {
      lines.Feed(std::string_view(input).substr(at, size), &log);
    }
    EXPECT_EQ(log.text, expected) << size;
    EXPECT_FALSE(lines.in_line());
  }
}

TEST(ControlLines, KnowsThatALineIsHalf) {
  Log log;
  ControlLines lines;
  lines.Feed("{\"type\":\"res", &log);
  EXPECT_TRUE(lines.in_line());
  lines.Feed(std::string(1 << 20, 'x'), &log);
  EXPECT_TRUE(lines.in_line());
  lines.Feed("\n", &log);
  EXPECT_FALSE(lines.in_line());
}

TEST(ControlLines, KeepsOnlyTheStartOfALine) {
  Log log;
  ControlLines lines;
  const std::string start = "{\"type\":\"ready\",\"pid\":";
  lines.Feed(start + std::string(1000, '1'), &log);
  EXPECT_EQ(log.text.size(), start.size() + 1000);
}

TEST(OutputText, IsAscii) {
  OutputText text("stdout");
  EXPECT_EQ(
      text.Event("a\"\\\n\t\x01\x7f", 7),
      "{\"type\":\"stdout\",\"text\":\"a\\\"\\\\\\n\\u0009\\u0001\\u007f\",\"timestamp\":7}\n");
  EXPECT_EQ(text.Event("\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80", 7),
            "{\"type\":\"stdout\",\"text\":\"\\u00e9\\u20ac\\ud83d\\ude00\",\"timestamp\":7}\n");
}

TEST(OutputText, PutsCharactersTogether) {
  OutputText text("stderr");
  EXPECT_EQ(text.Event("\xf0\x9f", 0), "");
  EXPECT_EQ(text.Event("\x98", 0), "");
  EXPECT_EQ(text.Event("\x80!", 1),
            "{\"type\":\"stderr\",\"text\":\"\\ud83d\\ude00!\",\"timestamp\":1}\n");
  EXPECT_EQ(text.Event("x\xe2\x82", 2), "{\"type\":\"stderr\",\"text\":\"x\",\"timestamp\":2}\n");
  EXPECT_EQ(text.Rest(3), "{\"type\":\"stderr\",\"text\":\"\\ufffd\\ufffd\",\"timestamp\":3}\n");
  EXPECT_EQ(text.Rest(3), "");
}

TEST(OutputText, ReplacesWhatIsNotUtf8) {
  OutputText text("stdout");
  EXPECT_EQ(text.Event("\xff\xc3(\x80\x80\x80\x80.", 0),
            "{\"type\":\"stdout\",\"text\":\"\\ufffd\\ufffd(\\ufffd\\ufffd\\ufffd\\ufffd.\","
            "\"timestamp\":0}\n");
}

TEST(Language, Names) {
  EXPECT_EQ(ParseLanguage("js"), Language::kJavaScript);
  EXPECT_EQ(ParseLanguage("typescript"), Language::kTypeScript);
  EXPECT_EQ(ParseLanguage("Python"), std::nullopt);
  EXPECT_EQ(ParseLanguage("r"), std::nullopt);
  EXPECT_EQ(LanguageName(Language::kBash), "bash");
}

TEST(Language, Requests) {
  EXPECT_EQ(ExecuteRequest(Language::kPython, "a\n\"b\"", {{"N", "v"}}),
            "{\"type\":\"execute\",\"code\":\"a\\n\\\"b\\\"\",\"env_vars\":{\"N\":\"v\"}}\n");
  EXPECT_EQ(IdentityRequest(Language::kJavaScript, {{"N", "v"}}, 1),
            "{\"type\":\"identity\",\"environment\":{\"N\":\"v\"}}\n");
}

TEST(Language, RequestsToBash) {
  EXPECT_EQ(ExecuteRequest(Language::kBash, std::string_view("echo 'x'\0; y", 13),
                           {{"N", "it's"}, {"1;rm", "v"}, {"", "v"}}),
            "__cube_set N 'it'\\''s'\n__cube_begin\n"
            "{ eval 'echo '\\''x'\\''; y'; } </dev/null 3>&-; __cube_status=$?\n__cube_end\n");
  EXPECT_EQ(IdentityRequest(Language::kBash, {{"N", "v"}}, 7),
            "__cube_identity 7\n__cube_global N 'v'\n");
}

}  // namespace
}  // namespace cube::agent::interpreter
