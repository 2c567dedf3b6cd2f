#include "guestkernel/agent/hosts_file.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <sstream>

namespace cube::agent {
namespace {

class HostsFileTest : public ::testing::Test {
 protected:
  void SetUp() override { unlink(path_.c_str()); }
  void Write(const std::string& text) const { std::ofstream(path_) << text; }
  std::string Text() const {
    std::ifstream in(path_);
    std::stringstream text;
    text << in.rdbuf();
    return text.str();
  }
  static std::string Own(const std::string& name) {
    return "127.0.1.1 " + name + std::string(64 - name.size(), ' ') + "\n";
  }
  // What becomes of a file.
  std::string Prepared(const std::string& text) {
    Write(text);
    auto hosts = HostsFile::Prepare(path_, "cube");
    EXPECT_TRUE(hosts.ok()) << hosts.error().message();
    const std::string once = Text();
    EXPECT_TRUE(HostsFile::Prepare(path_, "cube").ok());
    EXPECT_EQ(Text(), once);
    return once;
  }

  std::string path_ = ::testing::TempDir() + "/hosts";
};

TEST_F(HostsFileTest, IsMadeIfThereIsNone) {
  ASSERT_TRUE(HostsFile::Prepare(path_, "cube").ok());
  EXPECT_EQ(Text(), "127.0.0.1 localhost\n" + Own("cube"));
}

TEST_F(HostsFileTest, KeepsWhatIsNotAboutTheMachineItself) {
  EXPECT_EQ(Prepared("127.0.0.1 localhost cube\n::1 localhost ip6-localhost\n"),
            "127.0.0.1 localhost\n::1 localhost ip6-localhost\n" + Own("cube"));
  EXPECT_EQ(Prepared("# mine\n\n127.0.0.1\tlocalhost\n10.0.0.1 db cube # the data\n127.0.1.1 old"),
            "# mine\n\n127.0.0.1\tlocalhost\n10.0.0.1 db cube # the data\n" + Own("cube"));
  EXPECT_EQ(Prepared("127.0.0.1 cube\n127.0.0.1 localhost"), "127.0.0.1 localhost\n" + Own("cube"));
  EXPECT_EQ(Prepared("#127.0.0.1 localhost\n"),
            "127.0.0.1 localhost\n#127.0.0.1 localhost\n" + Own("cube"));
  // As another clone has left it.
  EXPECT_EQ(Prepared("127.0.0.1 localhost\n" + Own("cube-12345678") + "10.0.0.1 later\n"),
            "127.0.0.1 localhost\n10.0.0.1 later\n" + Own("cube"));
}

TEST_F(HostsFileTest, AnotherNameTakesTheSamePlace) {
  Write("127.0.0.1 localhost\n");
  HostsFile hosts = HostsFile::Prepare(path_, "cube").value();
  std::ofstream(path_, std::ios::app) << "10.0.0.1 db\n";
  const std::string longest(64, 'x');
  for (const std::string& name : {std::string("cube-01234567"), longest, std::string("a.b")}) {
    ASSERT_TRUE(hosts.SetName(name).ok());
    EXPECT_EQ(Text(), "127.0.0.1 localhost\n" + Own(name) + "10.0.0.1 db\n");
  }
}

TEST_F(HostsFileTest, WhatSomebodyChangedIsLeftAlone) {
  HostsFile hosts = HostsFile::Prepare(path_, "cube").value();
  for (const std::string& text :
       {std::string("10.0.0.1 db\n"), std::string(), "127.0.0.1 localhost\n" + Own("mine")}) {
    Write(text);
    EXPECT_TRUE(hosts.SetName("other").ok());
    EXPECT_EQ(Text(), text);
  }
}

TEST_F(HostsFileTest, RefusesInOneLine) {
  for (const std::string& name : {std::string(), std::string(65, 'x'), std::string("a b"),
                                  std::string("a\nb"), std::string("\xc3\xa9")}) {
    EXPECT_NE(HostsFile::Prepare(path_, name).error().message().find("has no place in /etc/hosts"),
              std::string::npos);
  }
  Write(std::string(70000, 'x'));
  EXPECT_EQ(HostsFile::Prepare(path_, "cube").error().message(),
            path_ + " has more than 65536 bytes");
  EXPECT_FALSE(HostsFile::Prepare("/no/such/hosts", "cube").ok());
}

}  // namespace
}  // namespace cube::agent
