#include "base/result.h"

#include <gtest/gtest.h>

#include <cerrno>
#include <memory>

namespace cube {
namespace {

Result<std::unique_ptr<int>> Half(int value) {
  if (value % 2 != 0) return Errorf("%d is odd", value);
  return std::make_unique<int>(value / 2);
}

Result<int> Quarter(int value) {
  CUBE_ASSIGN(std::unique_ptr<int> half, Half(value));
  CUBE_ASSIGN(std::unique_ptr<int> quarter, Half(*half));
  return *quarter;
}

Status Check(int value) {
  CUBE_TRY(Quarter(value));
  return OkStatus();
}

TEST(Result, CarriesMoveOnlyValuesAndErrorsUp) {
  EXPECT_EQ(*Quarter(12), 3);
  EXPECT_EQ(Quarter(6).error().message(), "3 is odd");
  EXPECT_TRUE(Check(8).ok());
  EXPECT_EQ(Check(7).error().message(), "7 is odd");
}

TEST(Result, ErrnoErrorNamesTheReason) {
  errno = ENOENT;
  EXPECT_EQ(ErrnoError("opening %s", "x").message(), "opening x: No such file or directory");
}

TEST(Result, WrapPutsTheContextFirst) {
  EXPECT_EQ(Error("too big").Wrap("loading k").message(), "loading k: too big");
}

TEST(ResultDeathTest, ReadingTheWrongSideAborts) {
  EXPECT_DEATH((void)Half(3).value(), "");
  EXPECT_DEATH((void)Half(4).error(), "");
}

}  // namespace
}  // namespace cube
