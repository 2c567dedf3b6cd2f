#include "guestkernel/agent/root_option.h"

#include <gtest/gtest.h>

namespace cube::agent {
namespace {

std::string Parsed(std::string_view line) {
  Result<std::optional<RootOption>> root = ParseRootOption(line);
  if (!root.ok()) return root.error().message();
  if (!root->has_value()) return "none";
  return (*root)->device + ((*root)->read_only ? " read-only" : "");
}

TEST(RootOption, IsAWordAmongOthers) {
  EXPECT_EQ(Parsed("console=ttyS0 cube.root=/dev/vda quiet\n"), "/dev/vda");
  EXPECT_EQ(Parsed("cube.root=/dev/vda:ro"), "/dev/vda read-only");
  EXPECT_EQ(Parsed("\tcube.root=/dev/vdb1\n"), "/dev/vdb1");
}

TEST(RootOption, WithoutItTheInitramfsStays) {
  EXPECT_EQ(Parsed(""), "none");
  EXPECT_EQ(Parsed(" \n"), "none");
  EXPECT_EQ(Parsed("root=/dev/vda notcube.root=/dev/vda cube.root cube.roots=/dev/vda"), "none");
}

TEST(RootOption, TheLastCounts) {
  EXPECT_EQ(Parsed("cube.root=/dev/vda:ro cube.root=/dev/vdb"), "/dev/vdb");
}

TEST(RootOption, WrongOnesAreNamed) {
  for (const char* word :
       {"cube.root=", "cube.root=/dev/", "cube.root=vda", "cube.root=/etc/passwd", "cube.root=:ro",
        "cube.root=/dev/:ro", "cube.root=/dev/vda:rw", "cube.root=/dev/vda:ro:ro",
        "cube.root=/dev/../etc", "cube.root=/dev/sub/vda"}) {
    EXPECT_EQ(Parsed(std::string("quiet ") + word + " panic=-1"),
              std::string("'") + word + "' is not cube.root=/dev/NAME[:ro]");
  }
}

}  // namespace
}  // namespace cube::agent
