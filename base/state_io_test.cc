#include "base/state_io.h"

#include <gtest/gtest.h>

namespace cube {
namespace {

struct Pair {
  uint32_t a;
  uint32_t b;
};

TEST(StateIo, ReadsBackWhatWasWritten) {
  StateWriter writer;
  writer.Put(Pair{1, 2});
  writer.PutString("vda");
  writer.Put<uint64_t>(7);
  StateReader reader(writer.bytes(), "state");
  Pair pair = {};
  ASSERT_TRUE(reader.Get(&pair).ok());
  EXPECT_EQ(pair.b, 2u);
  EXPECT_EQ(reader.GetString(3).value(), "vda");
  EXPECT_FALSE(reader.End().ok());
  uint64_t number = 0;
  ASSERT_TRUE(reader.Get(&number).ok());
  EXPECT_EQ(number, 7u);
  EXPECT_TRUE(reader.End().ok());
}

TEST(StateIo, RefusesWhatIsCutOff) {
  StateWriter writer;
  writer.Put<uint32_t>(1);
  StateReader reader(writer.bytes(), "the state of vda");
  uint64_t number = 0;
  EXPECT_EQ(reader.Get(&number).error().message(), "the state of vda ends 4 bytes too early");
}

TEST(StateIo, RefusesLengthsThatLie) {
  StateWriter writer;
  writer.Put<uint32_t>(9);
  writer.Put<uint32_t>(0);
  EXPECT_EQ(StateReader(writer.bytes(), "x").GetBytes(100).error().message(),
            "x: 9 bytes announced, 4 left");
  EXPECT_EQ(StateReader(writer.bytes(), "x").GetBytes(8).error().message(),
            "x: 9 bytes, at most 8 are valid");
}

}  // namespace
}  // namespace cube
