#include "api/build_steps.h"

#include <gtest/gtest.h>

namespace cube::api {
namespace {

const std::string kHash(64, 'a');

std::string Text(const BuildPlan& plan) {
  auto file = WriteSteps(plan);
  return file.ok() ? file->text : "refused: " + file.refusal().message;
}

BuildPlan With(TemplateStep step) {
  BuildPlan plan;
  plan.from = "base";
  plan.steps = {std::move(step)};
  return plan;
}

constexpr char kBegin[] = "FROM base\nUSER user\nWORKDIR \"/home/user\"\n";

TEST(BuildSteps, EachInstructionKnowsItsStep) {
  BuildPlan plan;
  plan.from = "base";
  plan.steps = {{"RUN", {"a\n'b' \"$C\"", "root"}, ""},
                {"ENV", {"A", "x \"$PATH\"", "B", ""}, ""},
                {"WORKDIR", {"/srv/a b"}, ""}};
  plan.start_command = "serve";
  plan.ready_command = "check";
  auto file = WriteSteps(plan);
  ASSERT_TRUE(file.ok());
  EXPECT_EQ(file->text, std::string(kBegin) +
                            "USER root\n"
                            "RUN [\"/bin/bash\",\"-l\",\"-c\",\"a\\n'b' \\\"$C\\\"\"]\n"
                            "USER user\n"
                            "ENV A=\"x \\\"$PATH\\\"\"\nENV B=\"\"\n"
                            "WORKDIR \"/srv/a b\"\n"
                            "START [\"/bin/bash\",\"-l\",\"-c\",\"serve\"]\n"
                            "READY --timeout=600 [\"/bin/bash\",\"-l\",\"-c\",\"check\"]\n");
  EXPECT_EQ(file->step_of, (std::vector<std::string>{"base", "base", "base", "1", "1", "1", "2",
                                                     "2", "3", "finalize", "finalize"}));
}

TEST(BuildSteps, FilesAreOfTheUserOfTheirStep) {
  EXPECT_EQ(Text(With({"COPY", {"a $b", "c/", "", ""}, kHash})),
            kBegin + std::string("COPY --chown=user [\"") + kHash + "/a \\\\$b\",\"c/\"]\n");
  EXPECT_EQ(
      Text(With({"COPY", {"a", "c", "root:root", "0755"}, kHash})),
      kBegin + std::string("COPY --chown=root:root --chmod=755 [\"") + kHash + "/a\",\"c\"]\n");
}

TEST(BuildSteps, WhatCannotBeSaidIsRefused) {
  for (const TemplateStep& step : std::vector<TemplateStep>{
           {"RUN", {}, ""},
           {"RUN", {"a", "root\nRUN x"}, ""},
           {"USER", {"a b"}, ""},
           {"USER", {"$(x)"}, ""},
           {"ENV", {"A"}, ""},
           {"ENV", {"A B", "x"}, ""},
           {"ENV", {"A", "x\nRUN y"}, ""},
           {"WORKDIR", {"/a\nRUN y"}, ""},
           {"COPY", {"a", "b"}, "../../etc"},
           {"COPY", {"a", "b", "", "9"}, kHash},
           {"COPY", {"a"}, kHash},
           {"ADD", {"a", "b"}, ""},
       }) {
    EXPECT_TRUE(Text(With(step)).starts_with("refused: step 1: ")) << step.type;
  }
}

}  // namespace
}  // namespace cube::api
