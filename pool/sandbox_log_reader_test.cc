#include "pool/sandbox_log_reader.h"

#include <gtest/gtest.h>

#include <ctime>
#include <filesystem>
#include <fstream>

namespace cube::pool {
namespace {

namespace fs = std::filesystem;

class SandboxLogReaderTest : public ::testing::Test {
 protected:
  void SetUp() override {
    fs::remove(path_);
    fs::remove(path_ + ".1");
  }
  void Write(const std::string& text) { std::ofstream(path_, std::ios::app) << text; }
  // The next file is born later than those that are there.
  void Rotate() {
    fs::rename(path_, path_ + ".1");
    timespec before, now;
    clock_gettime(CLOCK_REALTIME_COARSE, &before);
    do {
      clock_gettime(CLOCK_REALTIME_COARSE, &now);
    } while (now.tv_nsec == before.tv_nsec);
  }
  std::string path_ = ::testing::TempDir() + "/sandbox.log";
};

TEST_F(SandboxLogReaderTest, GoesOnFromItsCursor) {
  EXPECT_EQ(ReadSandboxLog(path_, "", 100)->text, "");
  Write("one\n");
  LogPiece piece = ReadSandboxLog(path_, "", 100).value();
  EXPECT_EQ(piece.text, "one\n");
  EXPECT_EQ(ReadSandboxLog(path_, piece.cursor, 100)->text, "");
  Write("two\n");
  piece = ReadSandboxLog(path_, piece.cursor, 2).value();
  EXPECT_EQ(piece.text, "tw");
  // The file becomes the one before, and another begins.
  Rotate();
  Write("three\n");
  piece = ReadSandboxLog(path_, piece.cursor, 100).value();
  EXPECT_EQ(piece.text, "o\nthree\n");
  EXPECT_FALSE(piece.skipped);
  EXPECT_EQ(ReadSandboxLog(path_, piece.cursor, 100)->text, "");
  // What the cursor of old stood in is gone.
  std::string old = ReadSandboxLog(path_, "", 1)->cursor;
  Rotate();
  Write("four\n");
  piece = ReadSandboxLog(path_, old, 100).value();
  EXPECT_TRUE(piece.skipped);
  EXPECT_EQ(piece.text, "three\nfour\n");
}

TEST_F(SandboxLogReaderTest, RefusesOtherWords) {
  for (const char* cursor : {"x", "1", "1-2", "1-2:", "1-2:3x", "1:2:3"}) {
    EXPECT_FALSE(ReadSandboxLog(path_, cursor, 1).ok()) << cursor;
  }
}

}  // namespace
}  // namespace cube::pool
