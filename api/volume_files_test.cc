#include "api/volume_files.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

namespace cube::api {
namespace {

namespace fs = std::filesystem;
using pool::Fault;

class VolumeFilesTest : public ::testing::Test {
 protected:
  VolumeFilesTest() : folder_(fs::path(::testing::TempDir()) / "volume") {
    fs::remove_all(folder_);
    fs::create_directories(folder_ / "root");
    auto root = OpenFile((folder_ / "root").string(), O_PATH | O_DIRECTORY);
    files_.emplace(std::move(*root));
    trash_.emplace(std::move(*VolumeTrash::Open((folder_ / "trash").string())));
  }

  static VolumePath At(const std::string& text) { return *VolumePath::Parse(text); }
  pool::Outcome<VolumeEntry> Put(const std::string& path, const std::string& text,
                                 bool force = false, VolumeAttributes attributes = {}) {
    const std::string source = (folder_ / "upload").string();
    std::ofstream(source) << text;
    return files_->Place(source, At(path), attributes, force);
  }
  std::string Get(const std::string& path) {
    auto fd = files_->Open(At(path));
    if (!fd.ok()) return "(" + fd.refusal().message + ")";
    char bytes[256];
    ssize_t n = read(fd->get(), bytes, sizeof bytes);
    return std::string(bytes, static_cast<size_t>(std::max<ssize_t>(n, 0)));
  }
  template <typename T>
  static Fault FaultOf(const pool::Outcome<T>& outcome) {
    return outcome.ok() ? static_cast<Fault>(-1) : outcome.refusal().fault;
  }

  fs::path folder_;
  std::optional<VolumeFiles> files_;
  std::optional<VolumeTrash> trash_;
};

TEST_F(VolumeFilesTest, PathsThatAreNone) {
  for (const std::string& text :
       {std::string(), std::string("/a/../b"), std::string(".."), std::string("a\0b", 3),
        std::string("\xff"), std::string(4097, 'a'), std::string(256, 'a'), [] {
          std::string deep;
          for (int i = 0; i < 65; ++i) deep += "/a";
          return deep;
        }()}) {
    EXPECT_EQ(FaultOf(VolumePath::Parse(text)), Fault::kInvalid) << text;
  }
  EXPECT_EQ(At("a//./b/").Text(), "/a/b");
  EXPECT_EQ(At("/").Text(), "/");
  EXPECT_TRUE(At(".").IsRoot());
  EXPECT_EQ(At("/..a/...").Text(), "/..a/...");
}

TEST_F(VolumeFilesTest, FilesAreWrittenReadListedAndRemoved) {
  EXPECT_EQ(FaultOf(Put("/a/b/file", "no folder")), Fault::kNotFound);
  auto made = Put("/a/b/file", "one", true, {{}, {}, 0600});
  ASSERT_TRUE(made.ok()) << made.refusal().message;
  EXPECT_EQ(made->name, "file");
  EXPECT_EQ(made->path, "/a/b/file");
  EXPECT_STREQ(made->type, "file");
  EXPECT_EQ(made->size, 3U);
  EXPECT_EQ(made->mode, 0600U);
  EXPECT_EQ(Get("/a/b/file"), "one");
  ASSERT_TRUE(Put("/a/b/file", "two").ok());
  EXPECT_EQ(Get("/a/b/file"), "two");
  EXPECT_EQ(files_->Look(At("/a/b/file"))->mode, 0644U);
  EXPECT_EQ(files_->List(At("/"), 1)->size(), 1U);
  auto all = files_->List(At("/"), 3);
  ASSERT_EQ(all->size(), 3U);
  EXPECT_EQ((*all)[2].path, "/a/b/file");
  EXPECT_EQ(FaultOf(Put("/a/b", "a folder is there")), Fault::kConflict);
  EXPECT_EQ(FaultOf(files_->Open(At("/a"))), Fault::kInvalid);
  EXPECT_EQ(FaultOf(files_->List(At("/a/b/file"), 1)), Fault::kNotFound);
  ASSERT_TRUE(files_->Remove(At("/a"), &*trash_).ok());
  EXPECT_EQ(FaultOf(files_->Remove(At("/a"), &*trash_)), Fault::kNotFound);
  EXPECT_EQ(FaultOf(files_->Remove(At("/"), &*trash_)), Fault::kInvalid);
  EXPECT_TRUE(files_->List(At("/"), 32)->empty());
}

TEST_F(VolumeFilesTest, FoldersAreMadeAndChanged) {
  EXPECT_EQ(FaultOf(files_->MakeFolder(At("/a/b"), {}, false)), Fault::kNotFound);
  auto made = files_->MakeFolder(At("/a/b"), {{}, {}, 0700}, true);
  ASSERT_TRUE(made.ok());
  EXPECT_STREQ(made->type, "directory");
  EXPECT_EQ(made->mode, 0700U);
  EXPECT_EQ(FaultOf(files_->MakeFolder(At("/a/b"), {}, false)), Fault::kConflict);
  EXPECT_TRUE(files_->MakeFolder(At("/a/b"), {}, true).ok());
  ASSERT_TRUE(Put("/file", "x").ok());
  EXPECT_EQ(FaultOf(files_->MakeFolder(At("/file"), {}, true)), Fault::kConflict);
  auto changed = files_->Change(At("/a"), {getuid(), getgid(), 0711});
  ASSERT_TRUE(changed.ok()) << changed.refusal().message;
  EXPECT_EQ(changed->mode, 0711U);
  EXPECT_EQ(FaultOf(files_->Change(At("/none"), {})), Fault::kNotFound);
}

// None can be made through this; but somebody may have.
TEST_F(VolumeFilesTest, LinksLeadNowhere) {
  std::ofstream(folder_ / "secret") << "secret";
  fs::create_symlink(folder_ / "secret", folder_ / "root" / "file");
  fs::create_symlink("..", folder_ / "root" / "up");
  fs::create_symlink("/", folder_ / "root" / "all");
  EXPECT_FALSE(files_->Open(At("/file")).ok());
  EXPECT_FALSE(files_->Open(At("/up/secret")).ok());
  EXPECT_FALSE(files_->List(At("/all"), 1).ok());
  EXPECT_FALSE(files_->Change(At("/file"), {{}, {}, 0777}).ok());
  EXPECT_FALSE(Put("/up/new", "x", true).ok());
  EXPECT_FALSE(fs::exists(folder_ / "new"));
  EXPECT_EQ(files_->List(At("/"), 32)->size(), 3U);
  ASSERT_TRUE(Put("/file", "in its place").ok());
  EXPECT_EQ(Get("/file"), "in its place");
  ASSERT_TRUE(files_->Remove(At("/all"), &*trash_).ok());
  ASSERT_TRUE(files_->Remove(At("/up"), &*trash_).ok());
  std::ifstream secret(folder_ / "secret");
  EXPECT_EQ(std::string(std::istreambuf_iterator<char>(secret), {}), "secret");
}

TEST_F(VolumeFilesTest, PipesDoNotHang) {
  ASSERT_EQ(mkfifo((folder_ / "root" / "pipe").c_str(), 0600), 0);
  EXPECT_EQ(FaultOf(files_->Open(At("/pipe"))), Fault::kInvalid);
}

// A sandbox can make folders deeper than a path can be, and than anybody can walk by recursion.
TEST_F(VolumeFilesTest, WhatIsRemovedGoesHoweverDeepAndMuchItIs) {
  constexpr int kDeep = 5000;
  int fd = open((folder_ / "root").c_str(), O_RDONLY | O_DIRECTORY);
  for (int i = 0; i < kDeep; ++i) {
    ASSERT_EQ(mkdirat(fd, "d", 0755), 0);
    int next = openat(fd, "d", O_RDONLY | O_DIRECTORY);
    close(fd);
    fd = next;
    ASSERT_GE(fd, 0);
    close(openat(fd, "file", O_WRONLY | O_CREAT, 0644));
    ASSERT_EQ(symlinkat("/etc/passwd", fd, "link"), 0);
  }
  close(fd);
  ASSERT_TRUE(files_->Remove(At("/d"), &*trash_).ok());
  EXPECT_TRUE(fs::is_empty(folder_ / "root"));
  while (trash_->Empty(100)) {
  }
  EXPECT_TRUE(fs::is_empty(folder_ / "trash"));
  EXPECT_TRUE(fs::exists("/etc/passwd"));
}

TEST_F(VolumeFilesTest, WhatIsLeftOfAProcessBeforeIsTrashToo) {
  fs::create_directories(folder_ / "trash/0/x");
  ASSERT_TRUE(Put("/a/b", "x", /*force=*/true).ok());
  ASSERT_TRUE(files_->Remove(At("/a"), &*trash_).ok());
  EXPECT_TRUE(fs::exists(folder_ / "trash/1/b"));
  while (trash_->Empty(1)) {
  }
  EXPECT_TRUE(fs::is_empty(folder_ / "trash"));
}

TEST_F(VolumeFilesTest, WhatIsMadeBelongsToTheFoldersOwner) {
  ASSERT_EQ(geteuid(), 0u) << "only root can give files away";
  ASSERT_EQ(chown((folder_ / "root").c_str(), 1000, 1001), 0);
  EXPECT_EQ(Put("/a/b", "x", /*force=*/true)->uid, 1000u);
  EXPECT_EQ(files_->Look(At("/a"))->gid, 1001u);
  EXPECT_EQ(files_->MakeFolder(At("/c/d"), {}, /*force=*/true)->uid, 1000u);
  VolumeAttributes other;
  other.uid = 7;
  EXPECT_EQ(Put("/e", "x", false, other)->uid, 7u);
  EXPECT_EQ(files_->Look(At("/e"))->gid, 1001u);
}

}  // namespace
}  // namespace cube::api
