#include "pool/config.h"

#include <gtest/gtest.h>

namespace cube::pool {
namespace {

std::string ErrorOf(const std::string& text) {
  auto config = Config::Parse(text, "f");
  return config.ok() ? "" : config.error().message();
}

TEST(Config, AnEmptyFileIsTheDefaults) {
  auto config = Config::Parse("", "f");
  ASSERT_TRUE(config.ok());
  EXPECT_EQ(config->home, "/var/lib/cube");
  EXPECT_EQ(config->ControlSocket(), "/var/lib/cube/cubed.sock");
  EXPECT_EQ(config->PoolOf("any"), PoolConfig());
  // What `cube-vmm run` has made for itself is nobody's to wait for.
  EXPECT_EQ(config->PoolOf("run-" + std::string(32, 'a')).size, 0u);
}

TEST(Config, TemplatesDifferFromTheirPoolInWhatTheySay) {
  auto config = Config::Parse(
      "[node]\nhome = \"/h\"\n[sandbox]\non_timeout = \"pause\"\n[pool]\nsize = 7\n"
      "[template.python]\nconcurrency = 3\n[template.\"run-x\"]\nsize = 1\n",
      "f");
  ASSERT_TRUE(config.ok()) << config.error().message();
  EXPECT_EQ(config->home, "/h");
  EXPECT_EQ(config->on_timeout, OnTimeout::kPause);
  EXPECT_EQ(config->PoolOf("python").size, 7u);
  EXPECT_EQ(config->PoolOf("python").concurrency, 3u);
  EXPECT_EQ(config->PoolOf("run-x").size, 1u);
}

TEST(Config, ErrorsNameLineValueAndRange) {
  EXPECT_EQ(ErrorOf("[pool]\n\nsize = 1001\n"),
            "f:3: pool.size is not a whole number from 0 to 1000");
  EXPECT_EQ(ErrorOf("[pool]\nsize = \"4\"\n"),
            "f:2: pool.size is not a whole number from 0 to 1000");
  EXPECT_EQ(ErrorOf("[pool]\nsize = -1\n"), "f:2: pool.size is not a whole number from 0 to 1000");
  EXPECT_EQ(ErrorOf("[pool]\nsise = 1\n"), "f:2: pool.sise is not known");
  EXPECT_EQ(ErrorOf("\n[poll]\n"), "f:2: poll is not known");
  EXPECT_EQ(ErrorOf("pool = 3\n"), "f:1: pool is not a table");
  EXPECT_EQ(ErrorOf("[template]\na = 3\n"), "f:2: template.a is not a table, or the 1001th");
  EXPECT_EQ(ErrorOf("[template.a]\nsize = 1\nx = 1\n"), "f:3: template.a.x is not known");
  EXPECT_EQ(ErrorOf("[node]\nhome = \"h\"\n"), "f:2: node.home is not an absolute path");
  EXPECT_EQ(ErrorOf("[sandbox]\non_timeout = \"explode\"\n"),
            "f:2: sandbox.on_timeout is none of kill, pause");
  EXPECT_EQ(ErrorOf("[capacity]\nmemory_overcommit = nan\n"),
            "f:2: capacity.memory_overcommit is not a number from 0.1 to 1000");
  EXPECT_EQ(ErrorOf("[sandbox]\ntimeout_seconds = 100\nmax_timeout_seconds = 10\n"),
            "f:1: sandbox.timeout_seconds of 100 is more than max_timeout_seconds of 10");
  EXPECT_EQ(ErrorOf("[node]\n[node]\n").substr(0, 4), "f:2:");
  EXPECT_EQ(ErrorOf("a = \n").substr(0, 4), "f:1:");
}

}  // namespace
}  // namespace cube::pool
