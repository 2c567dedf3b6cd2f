#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <thread>

#include "base/file_stream.h"
#include "guestkernel/agent/tools/account.h"
#include "guestkernel/agent/tools/unpack.h"
#include "guestkernel/agent/tools/warm_up.h"

namespace cube::agent {
namespace {

namespace fs = std::filesystem;
using file_stream::Kind;

class AccountTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::ofstream(passwd_) << "root:x:0:0:root:/root:/bin/sh\n"
                              "# a line that is none\n"
                              "app:x:1000:1001::/srv/app:/bin/sh\n"
                              "homeless:x:5:5:::\n";
    std::ofstream(group_) << "root:x:0:\napp:x:1001:\ndialout:x:20:other,app\nweb:x:33:app\n";
  }
  std::string Found(const std::string& text) {
    auto account = Account::Find(text, passwd_, group_);
    if (!account.ok()) return account.error().message();
    std::string out = Format("%u:%u %s", account->uid, account->gid, account->home.c_str());
    for (gid_t group : account->groups) out += Format(" %u", group);
    return out;
  }
  const std::string passwd_ = ::testing::TempDir() + "/passwd";
  const std::string group_ = ::testing::TempDir() + "/group";
};

TEST_F(AccountTest, NamesAndNumbers) {
  EXPECT_EQ(Found("root"), "0:0 /root");
  EXPECT_EQ(Found("app"), "1000:1001 /srv/app 20 33");
  EXPECT_EQ(Found("1000"), "1000:1001 /srv/app 20 33");
  EXPECT_EQ(Found("app:web"), "1000:33 /srv/app");
  EXPECT_EQ(Found("app:7"), "1000:7 /srv/app");
  EXPECT_EQ(Found("4711:8"), "4711:8 /");
  EXPECT_EQ(Found("4711"), "4711:0 /");
  EXPECT_EQ(Found("homeless"), "5:5 /");
}

TEST_F(AccountTest, WhoIsNotThereIsNamed) {
  EXPECT_EQ(Found("nobody"), "there is no user \"nobody\" in " + passwd_);
  EXPECT_EQ(Found("app:nogroup"), "there is no group \"nogroup\" in " + group_);
  EXPECT_EQ(Found(""), "\"\" names no user");
  EXPECT_EQ(Found(":web"), "\":web\" names no user");
  EXPECT_EQ(Found("4294967295"), "there is no user \"4294967295\" in " + passwd_);
}

TEST_F(AccountTest, AMachineWithoutTheFilesHasRoot) {
  fs::remove(passwd_);
  fs::remove(group_);
  EXPECT_EQ(Found("root"), "0:0 /root");
  EXPECT_EQ(Found("12:13"), "12:13 /");
  EXPECT_EQ(Found("app"), "there is no user \"app\" in " + passwd_);
}

class UnpackTest : public ::testing::Test {
 protected:
  void SetUp() override {
    root_ = ::testing::TempDir() + "/unpack";
    fs::remove_all(root_);
    fs::create_directories(root_);
  }
  void Add(Kind kind, const std::string& path, uint32_t mode, const std::string& content = "",
           const std::string& name = "", const std::string& owner = "") {
    file_stream::Header header = {file_stream::kMagic,
                                  static_cast<uint32_t>(kind),
                                  mode,
                                  static_cast<uint32_t>(path.size()),
                                  static_cast<uint32_t>(name.size()),
                                  static_cast<uint32_t>(owner.size()),
                                  content.size()};
    stream_.append(reinterpret_cast<const char*>(&header), sizeof header);
    stream_ += path + name + owner + content;
  }
  std::string Unpacked() {
    int ends[2];
    EXPECT_EQ(pipe(ends), 0);
    std::thread writer([&] {
      for (size_t at = 0; at < stream_.size();) {
        ssize_t n = write(ends[1], stream_.data() + at, stream_.size() - at);
        if (n <= 0) break;
        at += static_cast<size_t>(n);
      }
      close(ends[1]);
    });
    Status status = Unpack(ends[0]);
    // What was not read lets the writer end.
    char rest[4096];
    while (read(ends[0], rest, sizeof rest) > 0) {
    }
    writer.join();
    close(ends[0]);
    return status.ok() ? "" : status.error().message();
  }
  static std::string Read(const std::string& path) {
    std::ifstream file(path);
    return {std::istreambuf_iterator<char>(file), {}};
  }
  static mode_t Mode(const std::string& path) {
    struct stat info = {};
    EXPECT_EQ(lstat(path.c_str(), &info), 0) << path;
    return info.st_mode & 07777;
  }
  std::string root_, stream_;
};

TEST_F(UnpackTest, FoldersFilesAndLinks) {
  Add(Kind::kFolder, root_ + "/a/b", 0750);
  Add(Kind::kFile, root_ + "/a/b/run", 04755, std::string(200'000, 'x'));
  Add(Kind::kFile, root_ + "/c/d/text", 0640, "text");
  Add(Kind::kLink, root_ + "/a/link", 0777, "b/run");
  Add(Kind::kFile, root_ + "/a", 0644, "in the folder", "name");
  Add(Kind::kFile, root_ + "/new", 0644, "with that name", "name");
  Add(Kind::kFolder, root_ + "/a/b", file_stream::kKeepMode);
  Add(Kind::kEnd, "", 0);
  EXPECT_EQ(Unpacked(), "");
  EXPECT_EQ(Mode(root_ + "/a/b"), 0750u);
  EXPECT_EQ(Mode(root_ + "/a/b/run"), 04755u);
  EXPECT_EQ(Read(root_ + "/a/b/run").size(), 200'000u);
  EXPECT_EQ(Read(root_ + "/c/d/text"), "text");
  EXPECT_EQ(fs::read_symlink(root_ + "/a/link"), "b/run");
  EXPECT_EQ(Read(root_ + "/a/name"), "in the folder");
  EXPECT_EQ(Read(root_ + "/new"), "with that name");
}

TEST_F(UnpackTest, WhatIsThereIsReplaced) {
  Add(Kind::kFile, root_ + "/file", 0644, "old");
  Add(Kind::kLink, root_ + "/link", 0777, "file");
  Add(Kind::kFile, root_ + "/file", 0600, "new");
  Add(Kind::kFile, root_ + "/link", 0600, "no link any more");
  Add(Kind::kEnd, "", 0);
  EXPECT_EQ(Unpacked(), "");
  EXPECT_EQ(Read(root_ + "/file"), "new");
  EXPECT_FALSE(fs::is_symlink(root_ + "/link"));
}

TEST_F(UnpackTest, DamagedStreamsAreOneLine) {
  Add(Kind::kFile, root_ + "/file", 0644, "content");
  const std::string whole = stream_;
  for (size_t size = 0; size < whole.size(); size += 3) {
    stream_ = whole.substr(0, size);
    EXPECT_NE(Unpacked().find("ends"), std::string::npos) << size;
  }
  stream_ = std::string(64, 'x');
  EXPECT_NE(Unpacked().find("damaged"), std::string::npos);
  stream_.clear();
  Add(Kind::kFile, "relative", 0644);
  EXPECT_NE(Unpacked().find("no path from the root"), std::string::npos);
  stream_.clear();
  Add(Kind::kFile, std::string(5000, '/'), 0644);
  EXPECT_NE(Unpacked().find("more than 4095"), std::string::npos);
  stream_.clear();
  Add(Kind::kFile, root_, 0644, "over a folder");
  EXPECT_NE(Unpacked().find("cannot replace"), std::string::npos);
  stream_.clear();
  Add(Kind::kFile, root_ + "/x", 0644, "", "", "no such user");
  EXPECT_NE(Unpacked().find("there is no user"), std::string::npos);
}

TEST(WarmUpFile, IsReadOrRefused) {
  auto parse = [](std::vector<std::string> strings) {
    std::string text;
    for (const std::string& one : strings) text += one + '\0';
    return WarmUp::Parse(text);
  };
  auto good = parse({"60", "app", "/srv", "serve", "", "A=1", "B="});
  ASSERT_TRUE(good.ok());
  EXPECT_EQ(good->seconds, 60u);
  EXPECT_EQ(good->start, "serve");
  EXPECT_EQ(good->environment, (std::vector<std::string>{"A=1", "B="}));
  EXPECT_FALSE(parse({}).ok());
  EXPECT_FALSE(parse({"60", "", "", "serve"}).ok());
  EXPECT_FALSE(parse({"60", "", "", "", "true"}).ok());
  for (const char* seconds : {"", "0", "-1", "3601", "1x", "99999999999"}) {
    EXPECT_FALSE(parse({seconds, "", "", "serve", ""}).ok()) << seconds;
  }
  EXPECT_FALSE(WarmUp::Parse("60").ok());
}

}  // namespace
}  // namespace cube::agent
