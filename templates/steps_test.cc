#include "templates/steps.h"

#include <gtest/gtest.h>

namespace cube::templates {
namespace {

using Words = std::vector<std::string>;

Step One(const std::string& line) {
  auto list = StepList::Parse("FROM x\n" + line);
  EXPECT_TRUE(list.ok()) << list.error().message();
  return list.ok() ? list->steps.at(1) : Step{};
}

std::string ErrorOf(const std::string& text) {
  auto list = StepList::Parse(text);
  return list.ok() ? "" : list.error().message();
}

TEST(Steps, LinesCommentsAndContinuations) {
  auto list = StepList::Parse(
      "\n# comment\nFROM debian\r\n  run  one \\\n  # not this\n\n  two\\\n three  \nUSER app\n");
  ASSERT_TRUE(list.ok()) << list.error().message();
  ASSERT_EQ(list->steps.size(), 3u);
  EXPECT_EQ(list->steps[0].kind, StepKind::kFrom);
  EXPECT_EQ(list->steps[0].words, Words{"debian"});
  EXPECT_EQ(list->steps[0].line, 3u);
  EXPECT_EQ(list->steps[1].words, (Words{"/bin/sh", "-c", "one two three"}));
  EXPECT_EQ(list->steps[1].line, 4u);
  EXPECT_EQ(list->steps[1].text, "run  one two three");
  EXPECT_EQ(list->steps[2].words, Words{"app"});
}

TEST(Steps, Programs) {
  EXPECT_EQ(One("RUN a \"b\" $C # d").words, (Words{"/bin/sh", "-c", "a \"b\" $C # d"}));
  EXPECT_EQ(One("RUN [\"a\", \"b c\", \"\\u00e9\"]").words, (Words{"a", "b c", "\xc3\xa9"}));
  // What is no JSON is the shell's.
  EXPECT_EQ(One("RUN [ -e /x ] || exit 1").words[2], "[ -e /x ] || exit 1");
  EXPECT_EQ(ErrorOf("FROM x\nRUN --mount=type=cache x"),
            "line 2: RUN: the option \"--mount=type=cache\" is not possible here");
  EXPECT_EQ(One("CMD [\"serve\"]").words, Words{"serve"});
}

TEST(Steps, Environment) {
  EXPECT_EQ(One("ENV A=1 B=\"two words\" C='$D' E=x\\ y F=").words,
            (Words{"A", "1", "B", "two words", "C", "\\$D", "E", "x y", "F", ""}));
  EXPECT_EQ(One("ENV NAME some value").words, (Words{"NAME", "some value"}));
  EXPECT_EQ(ErrorOf("FROM x\nENV A"), "line 2: ENV: ENV A has no value");
  EXPECT_EQ(ErrorOf("FROM x\nENV 1A=x"), "line 2: ENV: \"1A=x\" is not NAME=VALUE");
  EXPECT_EQ(ErrorOf("FROM x\nENV A=\"x"), "line 2: ENV: a quote (\") has no end");
  EXPECT_NE(ErrorOf("FROM x\nENV"), "");
}

TEST(Steps, Copy) {
  Step step = One("COPY --chown=app:web --chmod=0755 a 'b c' /d/");
  EXPECT_EQ(step.words, (Words{"a", "b c", "/d/"}));
  EXPECT_EQ(step.chown, "app:web");
  EXPECT_EQ(step.chmod, "0755");
  EXPECT_EQ(One("COPY [\"a b\", \"c\"]").words, (Words{"a b", "c"}));
  EXPECT_NE(ErrorOf("FROM x\nCOPY a"), "");
  EXPECT_NE(ErrorOf("FROM x\nCOPY --chmod=9 a b"), "");
  EXPECT_NE(ErrorOf("FROM x\nCOPY --from=y a b"), "");
  EXPECT_NE(ErrorOf("FROM x\nCOPY [\"a\", 1]"), "");
}

TEST(Steps, StartAndReady) {
  EXPECT_EQ(One("START serve --port 1").words[2], "serve --port 1");
  EXPECT_EQ(ErrorOf("FROM x\nREADY true"), "READY without START");
  auto list = StepList::Parse("FROM x\nSTART a\nREADY --timeout=5 b");
  ASSERT_TRUE(list.ok());
  EXPECT_EQ(list->steps[2].seconds, 5u);
  for (const char* value : {"", "0", "3601", "x", "1x", "-1"}) {
    EXPECT_NE(ErrorOf(std::string("FROM x\nSTART a\nREADY --timeout=") + value + " b"), "");
  }
  EXPECT_NE(ErrorOf("FROM x\nSTART a\nSTART b"), "");
  EXPECT_NE(ErrorOf("FROM x\nSTART a\nREADY b\nREADY c"), "");
}

TEST(Steps, WhatIsWrongIsNamed) {
  EXPECT_EQ(ErrorOf(""), "the first step is not FROM");
  EXPECT_EQ(ErrorOf("RUN x"), "the first step is not FROM");
  EXPECT_EQ(ErrorOf("FROM x\nFROM y"), "there is more than one FROM");
  EXPECT_EQ(ErrorOf("FROM x y"), "line 1: FROM: one word is needed");
  EXPECT_EQ(ErrorOf("FROM x\nRUN <<END\nx\nEND"), "line 2: RUN: here-documents are not possible");
  EXPECT_EQ(ErrorOf("FROM x\n\nADD a b").substr(0, 30), "line 3: \"ADD\" is not one of FR");
  EXPECT_NE(ErrorOf(std::string("FROM x\n\0", 8)), "");
  EXPECT_NE(ErrorOf(std::string(2 << 20, '#')), "");
  std::string many = "FROM x\n";
  for (int i = 0; i < 300; ++i) many += "RUN x\n";
  EXPECT_EQ(ErrorOf(many), "more than 256 steps");
}

TEST(ExpandVariables, PutsValuesIn) {
  const Words environment = {"A=1", "PATH=/bin", "EMPTY=", "AB=2"};
  auto expanded = [&](const std::string& text) {
    auto out = ExpandVariables(text, environment);
    return out.ok() ? *out : out.error().message();
  };
  EXPECT_EQ(expanded("$A ${A} $AB ${A}B $NONE. $EMPTY|"), "1 1 2 1B . |");
  EXPECT_EQ(expanded("/opt:$PATH"), "/opt:/bin");
  EXPECT_EQ(expanded("\\$A $ $1 5$"), "$A $ $1 5$");
  EXPECT_EQ(expanded("${A"), "\"${A\" has a ${ that is not ${NAME}");
  EXPECT_EQ(expanded("${A:-x}"), "\"${A:-x}\" has a ${ that is not ${NAME}");
}

}  // namespace
}  // namespace cube::templates
