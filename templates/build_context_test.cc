#include "templates/build_context.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <cstring>
#include <filesystem>

#include "templates/copy_stream.h"
#include "templates/testing/tar_writer.h"

namespace cube::templates {
namespace {

namespace fs = std::filesystem;

TEST(IgnoreRules, Match) {
  EXPECT_TRUE(MatchesPath("a/b", "a/b"));
  EXPECT_TRUE(MatchesPath("*", "a"));
  EXPECT_FALSE(MatchesPath("*", "a/b"));
  EXPECT_TRUE(MatchesPath("*", ".hidden"));
  EXPECT_TRUE(MatchesPath("a/*/c?", "a/b/cd"));
  EXPECT_TRUE(MatchesPath("**/x", "x"));
  EXPECT_TRUE(MatchesPath("**/x", "a/b/x"));
  EXPECT_TRUE(MatchesPath("a/**", "a/b/c"));
  EXPECT_TRUE(MatchesPath("a/**/z", "a/z"));
  EXPECT_FALSE(MatchesPath("a/**", "a"));
  EXPECT_TRUE(MatchesPath("**", "a"));
  EXPECT_TRUE(MatchesPath("[ab].txt", "b.txt"));
  EXPECT_FALSE(MatchesPath("[ab].txt", "c.txt"));
  // Without an end that never comes.
  std::string stars, path;
  for (int i = 0; i < 200; ++i) stars += "**/", path += "a/";
  EXPECT_FALSE(MatchesPath(stars + "x", path + "y"));
}

TEST(IgnoreRules, TheLastOneCounts) {
  auto rules = IgnoreRules::Parse(
      "# comment\n\n /node_modules/ \n**/*.log\n!keep.log\r\nbuild\n!build/out\n");
  ASSERT_TRUE(rules.ok());
  EXPECT_TRUE(rules->Ignores("node_modules"));
  EXPECT_TRUE(rules->Ignores("node_modules/a/b"));
  EXPECT_FALSE(rules->Ignores("src/node_modules"));
  EXPECT_TRUE(rules->Ignores("a/b.log"));
  EXPECT_FALSE(rules->Ignores("keep.log"));
  EXPECT_TRUE(rules->Ignores("build/x"));
  EXPECT_FALSE(rules->Ignores("build/out/x"));
  EXPECT_FALSE(rules->final());
  EXPECT_FALSE(IgnoreRules::Parse("../x").ok());
  EXPECT_FALSE(IgnoreRules::Parse(std::string(2 << 20, 'x')).ok());
}

class BuildContextTest : public ::testing::Test {
 protected:
  void SetUp() override {
    top_ = ::testing::TempDir() + "/build_context";
    fs::remove_all(top_);
    testing::WriteFile(top_ + "/outside", "outside");
    testing::WriteFile(top_ + "/in/a.txt", "a");
    testing::WriteFile(top_ + "/in/b.txt", "b");
    testing::WriteFile(top_ + "/in/dir/sub/c", "c");
    fs::permissions(top_ + "/in/dir/sub/c", fs::perms(0751));
    fs::create_directories(top_ + "/in/dir/empty");
    fs::create_symlink("sub/c", top_ + "/in/dir/link");
  }
  // "KIND PATH[|NAME] MODE" of each entry, or the error.
  std::string Resolved(std::vector<std::string> sources, const std::string& destination,
                       const std::string& owner = "", const std::string& mode = "") {
    auto context = BuildContext::Open(top_ + "/in");
    if (!context.ok()) return context.error().message();
    auto entries = context->Resolve({std::move(sources), destination, owner, mode});
    if (!entries.ok()) return entries.error().message();
    std::string text;
    for (const CopyEntry& entry : *entries) {
      text += Format("%u %s%s%s ", static_cast<unsigned>(entry.kind), entry.path.c_str(),
                     entry.name.empty() ? "" : "|", entry.name.c_str());
      text += entry.mode == file_stream::kKeepMode ? "-\n" : Format("%o\n", entry.mode);
    }
    return text;
  }
  std::string top_;
};

TEST_F(BuildContextTest, FilesFoldersAndPatterns) {
  EXPECT_EQ(Resolved({"a.txt"}, "/x"), "2 /x|a.txt 644\n");
  EXPECT_EQ(Resolved({"/a.txt"}, "/x/"), "2 /x/a.txt 644\n");
  EXPECT_EQ(Resolved({"*.txt"}, "/x/"), "2 /x/a.txt 644\n2 /x/b.txt 644\n");
  EXPECT_EQ(Resolved({"d*/s?b/c"}, "/x"), "2 /x|c 751\n");
  EXPECT_EQ(Resolved({"dir"}, "/x"),
            "1 /x -\n1 /x/empty 755\n3 /x/link 777\n1 /x/sub 755\n2 /x/sub/c 751\n");
  EXPECT_EQ(Resolved({"dir/sub"}, "/x/", "", "700"), "1 /x/ -\n2 /x/c 700\n");
  EXPECT_EQ(Resolved({"dir/link"}, "/x"), "2 /x|link 751\n");
  EXPECT_EQ(Resolved({"a.txt", "b.txt"}, "/x"),
            "2 sources need a destination that ends with a '/'");
  EXPECT_EQ(Resolved({"none*"}, "/x"),
            "nothing in the build context is \"none*\", or it is ignored");
  EXPECT_NE(Resolved({"none"}, "/x").find("No such file"), std::string::npos);
}

TEST_F(BuildContextTest, NothingFromOutside) {
  EXPECT_EQ(Resolved({"../outside"}, "/x"), "a path with \"..\"");
  fs::create_symlink("../outside", top_ + "/in/up");
  fs::create_symlink(top_ + "/outside", top_ + "/in/absolute");
  fs::create_symlink("..", top_ + "/in/folder");
  fs::create_symlink("/proc/self/root", top_ + "/in/magic");
  for (const char* name : {"up", "absolute", "folder/outside", "magic/etc/passwd", "folder"}) {
    EXPECT_NE(Resolved({name}, "/x").find("leads out of the build context"), std::string::npos)
        << name << Resolved({name}, "/x");
  }
  // In a folder they are links, as they are.
  fs::create_symlink("../../outside", top_ + "/in/dir/up");
  EXPECT_NE(Resolved({"dir"}, "/x").find("3 /x/up 777\n"), std::string::npos);
  ASSERT_EQ(mkfifo((top_ + "/in/pipe").c_str(), 0600), 0);
  EXPECT_NE(Resolved({"pipe"}, "/x").find("neither a file nor a folder"), std::string::npos);
}

TEST_F(BuildContextTest, WhatIsIgnoredIsNotThere) {
  testing::WriteFile(top_ + "/in/.dockerignore", "a.txt\ndir/**\n!dir/sub/c\n");
  EXPECT_EQ(Resolved({"*"}, "/x/"),
            "2 /x/.dockerignore 644\n2 /x/b.txt 644\n1 /x/ -\n2 /x/sub/c 751\n");
  testing::WriteFile(top_ + "/in/.dockerignore", "a.txt\ndir\n");
  EXPECT_EQ(Resolved({"*"}, "/x/"), "2 /x/.dockerignore 644\n2 /x/b.txt 644\n");
  EXPECT_NE(Resolved({"a.txt"}, "/x/").find("or it is ignored"), std::string::npos);
  testing::WriteFile(top_ + "/in/.dockerignore", "../x\n");
  EXPECT_NE(Resolved({"a.txt"}, "/x").find(".dockerignore: a path with"), std::string::npos);
}

TEST_F(BuildContextTest, TheDigestIsOfAllThatIsCopied) {
  auto digest = [&](const std::string& owner = "", const std::string& mode = "",
                    const std::string& to = "/x/") {
    auto context = BuildContext::Open(top_ + "/in");
    auto entries = context->Resolve({{"dir", "a.txt"}, to, owner, mode});
    return DigestOf(*entries);
  };
  const std::string first = digest();
  EXPECT_EQ(digest(), first);
  EXPECT_NE(digest("app"), first);
  EXPECT_NE(digest("", "777"), first);
  EXPECT_NE(digest("", "", "/y/"), first);
  testing::WriteFile(top_ + "/in/a.txt", "A");
  EXPECT_NE(digest(), first);
  testing::WriteFile(top_ + "/in/a.txt", "a");
  EXPECT_EQ(digest(), first);
  fs::permissions(top_ + "/in/a.txt", fs::perms(0600));
  EXPECT_NE(digest(), first);
  fs::permissions(top_ + "/in/a.txt", fs::perms(0644));
  fs::remove(top_ + "/in/dir/link");
  fs::create_symlink("sub", top_ + "/in/dir/link");
  EXPECT_NE(digest(), first);
}

TEST_F(BuildContextTest, AStreamIsWhatWasResolvedOrAnError) {
  testing::WriteFile(top_ + "/in/big", std::string(300'000, 'b'));
  testing::WriteFile(top_ + "/in/empty", "");
  auto context = BuildContext::Open(top_ + "/in");
  auto entries = context->Resolve({{"big", "empty", "a.txt"}, "/x/", "app", ""});
  ASSERT_TRUE(entries.ok());
  auto read = [&](std::string* all) {
    CopyStream stream(&*context, &*entries);
    std::vector<uint8_t> piece(1000);
    while (true) {
      auto size = stream.Read(piece);
      if (!size.ok()) return size.error().message();
      if (*size == 0) return std::string();
      all->append(reinterpret_cast<const char*>(piece.data()), *size);
    }
  };
  std::string all;
  EXPECT_EQ(read(&all), "");
  const size_t strings = strlen("/x/big/x/empty/x/a.txt") + 3 * strlen("app");
  EXPECT_EQ(all.size(), 4 * sizeof(file_stream::Header) + strings + 300'001);
  testing::WriteFile(top_ + "/in/big", std::string(299'999, 'b') + "c");
  EXPECT_EQ(read(&all), "\"big\" changed while it was copied");
  fs::remove(top_ + "/in/big");
  EXPECT_NE(read(&all), "");
}

}  // namespace
}  // namespace cube::templates
