// Shares across a snapshot: the guest goes on with the nodes and open files it knew.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>

#include "devices/fs/testing/fuse_client.h"

namespace cube::devices::fs {
namespace {

using testing::FuseClient;
using testing::HostTree;

ShareConfig Share(const std::string& directory) {
  ShareConfig config;
  config.directory = directory;
  config.tag = "work";
  return config;
}

class FsStateTest : public ::testing::Test {
 protected:
  FsStateTest() {
    tree_.Mkdir("share/dir");
    tree_.Write("share/dir/file", "content");
    dir_ = client_.Walk("dir");
    file_ = client_.Walk("dir/file");
  }

  HostTree tree_;
  FuseClient client_{Share(tree_.share())};
  uint64_t dir_ = 0;
  uint64_t file_ = 0;
};

TEST_F(FsStateTest, NodesAndOpenFilesAreWhatTheyWere) {
  uint64_t reader = client_.OpenHandle(file_, O_RDONLY);
  uint64_t writer = client_.OpenHandle(file_, O_WRONLY | O_APPEND);
  uint64_t listing = client_.Do(FUSE_OPENDIR, dir_, fuse_open_in{}).As<fuse_open_out>().fh;
  ASSERT_TRUE(client_.SaveAndRestore(Share(tree_.share())).ok());
  EXPECT_EQ(client_.Read(file_, reader, 3, 100).text(), "tent");
  EXPECT_EQ(client_.Write(file_, reader, 0, "x").error, EBADF);
  EXPECT_EQ(client_.Write(file_, writer, 0, "+").error, 0);
  EXPECT_EQ(tree_.Read("share/dir/file"), "content+");
  EXPECT_EQ(client_.Walk("dir/file"), file_);
  fuse_read_in in = {};
  in.fh = listing;
  in.size = 4096;
  EXPECT_NE(client_.Do(FUSE_READDIR, dir_, in).payload.size(), 0u);
  // Numbers go on where they were.
  tree_.Write("share/new", "");
  EXPECT_GT(client_.Walk("new"), file_);
  EXPECT_GT(client_.OpenHandle(file_, O_RDONLY), listing);
  // Lookups as well: two before, one after.
  client_.Forget(file_, 1);
  EXPECT_EQ(client_.GetAttributes(file_).error, 0);
  client_.Release(file_, reader);
  client_.Release(file_, writer);
  EXPECT_EQ(client_.Metric("open_files"), 2u);
}

TEST_F(FsStateTest, AListingGoesOnWhereItWas) {
  for (int i = 0; i < 100; ++i) tree_.Write("share/dir/f" + std::to_string(i), "");
  fuse_read_in in = {};
  in.fh = client_.Do(FUSE_OPENDIR, dir_, fuse_open_in{}).As<fuse_open_out>().fh;
  in.size = 256;
  std::vector<std::string> names;
  for (int step = 0;; ++step) {
    auto answer = client_.Call(FUSE_READDIR, dir_, FuseClient::Pack(in), in.size);
    ASSERT_EQ(answer.error, 0);
    if (answer.payload.empty()) break;
    for (size_t at = 0; at < answer.payload.size();) {
      in.offset = answer.As<uint64_t>(at + 8);
      size_t length = answer.As<uint32_t>(at + 16);
      names.emplace_back(reinterpret_cast<char*>(&answer.payload[at + 24]), length);
      at += FUSE_REC_ALIGN(24 + length);
    }
    ASSERT_TRUE(step != 3 || client_.SaveAndRestore(Share(tree_.share())).ok());
  }
  EXPECT_EQ(names.size(), 103u);
  std::ranges::sort(names);
  EXPECT_EQ(std::ranges::unique(names).size(), 0u);
}

TEST_F(FsStateTest, RequestsThatWaitAreServedAfterwards) {
  client_.driver().AddRequest(
      kRequestQueue, FuseClient::Request(FUSE_GETATTR, file_, FuseClient::Pack(fuse_getattr_in{})),
      {200}, nullptr);
  ASSERT_TRUE(client_.SaveAndRestore(Share(tree_.share())).ok());  // never notified
  EXPECT_EQ(client_.driver().WaitUsed(kRequestQueue)->written,
            sizeof(fuse_out_header) + sizeof(fuse_attr_out));
}

TEST_F(FsStateTest, WhatIsGoneOrReplacedIsStale) {
  tree_.Write("share/gone", "");
  tree_.Write("share/unlinked", "");
  uint64_t gone = client_.Walk("gone");
  uint64_t unlinked = client_.Walk("unlinked");
  uint64_t handle = client_.OpenHandle(file_, O_RDONLY);
  uint64_t deleted = client_.OpenHandle(unlinked, O_RDONLY);
  ASSERT_EQ(client_.Do(FUSE_UNLINK, kRootNode, "unlinked").error, 0);
  EXPECT_EQ(client_.Read(unlinked, deleted, 0, 1).error, 0);
  // Between saving and restoring.
  FuseClient other(Share(tree_.share()));
  StateWriter writer;
  client_.driver().transport().Quiesce();
  ASSERT_TRUE(client_.device().Save(&writer).ok());
  std::filesystem::remove(tree_.Path("share/gone"));
  tree_.Rename("share/dir/file", "share/dir/old");
  tree_.Write("share/dir/file", "another");
  StateReader reader(writer.bytes(), "state");
  ASSERT_TRUE(other.device().Load(&reader).ok());
  EXPECT_EQ(other.GetAttributes(gone).error, ESTALE);
  EXPECT_EQ(other.GetAttributes(unlinked).error, ESTALE);
  EXPECT_EQ(other.Read(unlinked, deleted, 0, 1).error, ESTALE);
  EXPECT_EQ(other.GetAttributes(file_).error, ESTALE);
  EXPECT_EQ(other.Read(file_, handle, 0, 1).error, ESTALE);
  EXPECT_EQ(other.Release(file_, handle).error, 0);
  EXPECT_EQ(other.GetAttributes(dir_).error, 0);
  EXPECT_NE(other.Walk("dir/file"), file_);
  EXPECT_EQ(other.Walk("dir/old"), file_);
}

TEST_F(FsStateTest, ACopyOfTheDirectoryWillDo) {
  uint64_t handle = client_.OpenHandle(file_, O_RDWR);
  tree_.Write("share/changed", "one");
  uint64_t changed = client_.Walk("changed");
  std::filesystem::copy(tree_.share(), tree_.Path("copy"),
                        std::filesystem::copy_options::recursive);
  for (const char* path : {"dir/file", "changed"}) {
    std::filesystem::last_write_time(tree_.Path("copy") + "/" + path,
                                     std::filesystem::last_write_time(tree_.share() + "/" + path));
  }
  tree_.Write("copy/changed", "three");
  ASSERT_TRUE(client_.SaveAndRestore(Share(tree_.Path("copy"))).ok());
  EXPECT_EQ(client_.Write(file_, handle, 0, "C").error, 0);
  EXPECT_EQ(tree_.Read("copy/dir/file"), "Content");
  EXPECT_EQ(tree_.Read("share/dir/file"), "content");
  EXPECT_EQ(client_.Walk("dir/file"), file_);
  EXPECT_EQ(client_.Walk("dir"), dir_);
  EXPECT_EQ(client_.GetAttributes(changed).error, ESTALE);
  EXPECT_NE(client_.Walk("changed"), changed);
}

TEST_F(FsStateTest, AnEmptyDirectoryLeavesAllStale) {
  uint64_t handle = client_.OpenHandle(file_, O_RDONLY);
  tree_.Mkdir("empty");
  ASSERT_TRUE(client_.SaveAndRestore(Share(tree_.Path("empty"))).ok());
  EXPECT_EQ(client_.GetAttributes(file_).error, ESTALE);
  EXPECT_EQ(client_.GetAttributes(dir_).error, ESTALE);
  EXPECT_EQ(client_.Read(file_, handle, 0, 1).error, ESTALE);
  EXPECT_EQ(client_.GetAttributes(kRootNode).error, 0);
}

// A link in the directory at restore leads nowhere either.
TEST_F(FsStateTest, LinksAreNotFollowedAtRestore) {
  tree_.Mkdir("outside");
  tree_.Write("outside/file", "content");
  uint64_t handle = client_.OpenHandle(file_, O_RDONLY);
  tree_.Mkdir("trap");
  std::filesystem::create_directory_symlink(tree_.Path("outside"), tree_.Path("trap/dir"));
  std::filesystem::last_write_time(tree_.Path("outside/file"),
                                   std::filesystem::last_write_time(tree_.Path("share/dir/file")));
  ASSERT_TRUE(client_.SaveAndRestore(Share(tree_.Path("trap"))).ok());
  EXPECT_EQ(client_.GetAttributes(file_).error, ESTALE);
  EXPECT_EQ(client_.Read(file_, handle, 0, 1).error, ESTALE);
}

TEST_F(FsStateTest, AFileThatWasMovedOutOfTheShareIsStale) {
  tree_.Rename("share/dir", "moved");
  ASSERT_TRUE(client_.SaveAndRestore(Share(tree_.share())).ok());
  EXPECT_EQ(client_.GetAttributes(file_).error, ESTALE);
}

TEST_F(FsStateTest, AShareMayBecomeReadOnly) {
  uint64_t reader = client_.OpenHandle(file_, O_RDONLY);
  uint64_t writer = client_.OpenHandle(file_, O_RDWR);
  ShareConfig config = Share(tree_.share());
  config.read_only = true;
  ASSERT_TRUE(client_.SaveAndRestore(config).ok());
  EXPECT_EQ(client_.Read(file_, reader, 0, 100).text(), "content");
  EXPECT_EQ(client_.Write(file_, writer, 0, "x").error, EROFS);
  EXPECT_EQ(client_.Read(file_, writer, 0, 100).error, ESTALE);
}

TEST_F(FsStateTest, EveryTruncationIsAnError) {
  client_.OpenHandle(file_, O_RDONLY);
  StateWriter writer;
  ASSERT_TRUE(client_.device().Save(&writer).ok());
  FuseClient other(Share(tree_.share()));
  // Nothing at all is the state of one without a directory.
  for (size_t size = 1; size < writer.bytes().size(); ++size) {
    StateReader reader(std::span(writer.bytes()).first(size), "state");
    ASSERT_FALSE(other.device().Load(&reader).ok()) << size;
  }
  // And changes nothing.
  EXPECT_EQ(other.Walk("dir/file"), 3u);
}

TEST_F(FsStateTest, PathsThatLeadOutAreRefused) {
  StateWriter writer;
  ASSERT_TRUE(client_.device().Save(&writer).ok());
  FuseClient other(Share(tree_.share()));
  for (const char* path : {"../../../ab", "dir//abcde", "/dir/abcde", "dir/./abc", "dir/abcde/"}) {
    std::vector<uint8_t> bytes = writer.bytes();
    // "dir/file", its length before it, to another of any length.
    const std::string old("\x08\0\0\0dir/file", 12);
    auto at = std::search(bytes.begin(), bytes.end(), old.begin(), old.end());
    ASSERT_NE(at, bytes.end());
    std::string replacement(path);
    replacement.insert(0, std::string(4, '\0'));
    replacement[0] = static_cast<char>(replacement.size() - 4);
    at = bytes.erase(at, at + static_cast<ptrdiff_t>(old.size()));
    bytes.insert(at, replacement.begin(), replacement.end());
    StateReader reader(bytes, "state");
    Status loaded = other.device().Load(&reader);
    ASSERT_FALSE(loaded.ok()) << path;
    EXPECT_NE(loaded.error().message().find("path"), std::string::npos) << loaded.error().message();
  }
}

// ---- a device that is given its directory later

UniqueFd Opened(const std::string& directory) {
  return OpenFile(directory, O_PATH | O_DIRECTORY).value();
}

TEST_F(FsStateTest, WithoutADirectoryEverythingIsAnError) {
  FuseClient spare(Share(""), /*init=*/false);
  EXPECT_EQ(spare.Init().error, EIO);
  EXPECT_EQ(spare.GetAttributes(kRootNode).error, EIO);
  spare.Forget(kRootNode, 1);
  StateWriter writer;
  ASSERT_TRUE(spare.device().Save(&writer).ok());
  EXPECT_TRUE(writer.bytes().empty());
  ASSERT_TRUE(spare.SaveAndRestore(Share("")).ok());
  ASSERT_TRUE(spare.device().Plug(Opened(tree_.share())).ok());
  EXPECT_EQ(spare.Init().error, 0);
  EXPECT_NE(spare.Walk("dir/file"), 0u);
  EXPECT_FALSE(spare.device().Plug(Opened(tree_.share())).ok());
}

TEST_F(FsStateTest, OnlyADirectoryCanBePluggedIn) {
  FuseClient spare(Share(""), /*init=*/false);
  Status status = spare.device().Plug(OpenFile(tree_.Path("share/dir/file"), O_PATH).value());
  ASSERT_FALSE(status.ok());
  EXPECT_EQ(status.error().message(), "work: Not a directory");
  EXPECT_EQ(spare.Init().error, EIO);
}

TEST_F(FsStateTest, ASessionWaitsForItsDirectory) {
  uint64_t reader = client_.OpenHandle(file_, O_RDONLY);
  ASSERT_TRUE(client_.SaveAndRestore(Share("")).ok());
  EXPECT_EQ(client_.Read(file_, reader, 0, 100).error, EIO);
  // Once more, without ever having had it.
  ASSERT_TRUE(client_.SaveAndRestore(Share("")).ok());
  ASSERT_TRUE(client_.device().Plug(Opened(tree_.share())).ok());
  EXPECT_EQ(client_.Read(file_, reader, 0, 100).text(), "content");
  EXPECT_EQ(client_.Walk("dir/file"), file_);
}

TEST_F(FsStateTest, ADamagedSessionIsAnErrorOfPlugging) {
  StateWriter writer;
  ASSERT_TRUE(client_.device().Save(&writer).ok());
  std::vector<uint8_t> bytes = writer.Take();
  bytes.pop_back();
  FuseClient spare(Share(""), /*init=*/false);
  StateReader reader(bytes, "state");
  ASSERT_TRUE(spare.device().Load(&reader).ok());
  EXPECT_FALSE(spare.device().Plug(Opened(tree_.share())).ok());
  EXPECT_EQ(spare.GetAttributes(kRootNode).error, EIO);
}

TEST_F(FsStateTest, AStateOfBeforeItWasPluggedInEndsTheSession) {
  StateReader nothing({}, "state");
  ASSERT_TRUE(client_.device().Load(&nothing).ok());
  EXPECT_EQ(client_.GetAttributes(file_).error, EIO);
  EXPECT_EQ(client_.Init().error, 0);
}

}  // namespace
}  // namespace cube::devices::fs
