#include "templates/layer_reader.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <clocale>
#include <filesystem>
#include <fstream>

#include "templates/testing/tar_writer.h"

namespace cube::templates {
namespace {

namespace fs = std::filesystem;
using testing::TarEntry;
using testing::TarWriter;

class LayerReaderTest : public ::testing::Test {
 protected:
  void SetUp() override {
    setlocale(LC_CTYPE, "C.UTF-8");
    top_ = ::testing::TempDir() + "/layer_reader";
    fs::remove_all(top_);
    fs::create_directories(top_ + "/tree");
    testing::WriteFile(top_ + "/outside", "outside");
  }
  // "" or the error.
  std::string Unpack(const std::string& tar, ArchiveKind kind = ArchiveKind::kLayer) {
    testing::WriteFile(top_ + "/tar", tar);
    auto fd = OpenFile(top_ + "/tar", O_RDONLY);
    auto tree = Tree::Open(top_ + "/tree");
    Status status = UnpackArchive(fd->get(), "layer", kind, *tree, &budget_);
    // Whatever was tried, what lies beside the tree is as it was.
    EXPECT_EQ(Read(top_ + "/outside"), "outside");
    EXPECT_EQ(std::distance(fs::directory_iterator(top_), {}), 3);
    return status.ok() ? "" : status.error().message();
  }
  std::string In(const std::string& path) const { return top_ + "/tree/" + path; }
  static std::string Read(const std::string& path) {
    std::ifstream file(path);
    return {std::istreambuf_iterator<char>(file), {}};
  }
  static struct stat Stat(const std::string& path) {
    struct stat info = {};
    EXPECT_EQ(lstat(path.c_str(), &info), 0) << path;
    return info;
  }
  static bool Has(const std::string& text, const std::string& part) {
    return text.find(part) != std::string::npos;
  }

  std::string top_;
  UnpackBudget budget_;
};

TEST_F(LayerReaderTest, EveryKindOfEntryWithAllThatItHas) {
  TarWriter tar;
  tar.Folder("./").Folder("./bin", 0751);
  tar.Add({.path = "./bin/su", .content = "suid", .mode = 04755, .uid = 12, .gid = 34});
  tar.HardLink("bin/su2", "./bin/su").Link("bin/sh", "su");
  tar.Add({.path = "null", .type = '3', .mode = 0666, .major = 1, .minor = 3});
  tar.Add({.path = "pipe", .type = '6', .mode = 0600, .uid = 5});
  tar.Add({.path = "big", .content = "x", .uid = 3'000'000'000, .gid = 7'000'000});
  tar.Add({.path = "x",
           .pax = {{"SCHILY.xattr.user.note", "value"},
                   {"SCHILY.xattr.trusted.overlay.opaque", "y"},
                   {"path", std::string(150, 'l') + "/\xc3\xa9"}}});
  tar.File("dev/sda", "not made").Folder("a/b/c");
  ASSERT_EQ(Unpack(testing::Gzip(tar.Finish())), "");
  EXPECT_EQ(Stat(In("bin")).st_mode, S_IFDIR | 0751u);
  EXPECT_EQ(Stat(In("bin")).st_mtime, 1'600'000'000);
  struct stat su = Stat(In("bin/su"));
  EXPECT_EQ(su.st_mode, S_IFREG | 04755u);
  EXPECT_EQ(su.st_uid, 12u);
  EXPECT_EQ(su.st_gid, 34u);
  EXPECT_EQ(su.st_mtime, 1'600'000'000);
  EXPECT_EQ(su.st_ino, Stat(In("bin/su2")).st_ino);
  EXPECT_EQ(fs::read_symlink(In("bin/sh")), "su");
  EXPECT_TRUE(S_ISCHR(Stat(In("null")).st_mode));
  EXPECT_EQ(Stat(In("null")).st_rdev, makedev(1, 3));
  EXPECT_TRUE(S_ISFIFO(Stat(In("pipe")).st_mode));
  EXPECT_EQ(Stat(In("big")).st_uid, 3'000'000'000u);
  const std::string named = In(std::string(150, 'l') + "/\xc3\xa9");
  char value[16] = {};
  EXPECT_EQ(getxattr(named.c_str(), "user.note", value, sizeof value), 5);
  EXPECT_FALSE(fs::exists(In("dev/sda")));
  EXPECT_EQ(Stat(In("a")).st_mode, S_IFDIR | 0755u);
}

TEST_F(LayerReaderTest, ALayerIsPutOverTheOnesBelow) {
  TarWriter below;
  below.File("file", "old").Folder("folder").File("folder/inner", "inner").Link("link", "folder");
  below.File("becomes-folder", "x").File("kept", "kept");
  ASSERT_EQ(Unpack(below.Finish()), "");
  TarWriter above;
  above.File("file", "new").Folder("folder", 0700).Folder("becomes-folder").File("link", "a file");
  ASSERT_EQ(Unpack(above.Finish()), "");
  EXPECT_EQ(Read(In("file")), "new");
  EXPECT_EQ(Read(In("folder/inner")), "inner");
  EXPECT_EQ(Stat(In("folder")).st_mode & 0777, 0700u);
  EXPECT_TRUE(fs::is_directory(In("becomes-folder")));
  EXPECT_EQ(Read(In("link")), "a file");
  EXPECT_EQ(Read(In("kept")), "kept");
}

TEST_F(LayerReaderTest, WhiteoutsDeleteWhatIsBelow) {
  TarWriter below;
  below.File("a/file", "x").File("a/folder/deep/er", "x").File("b/one", "1").File("b/c/two", "2");
  below.File("plain", "x").Link("link", "b");
  ASSERT_EQ(Unpack(below.Finish()), "");
  TarWriter above;
  above.File("a/.wh.file", "").File("a/.wh.folder", "").File(".wh.link", "").File(".wh.none", "");
  above.File("b/c/new", "new").File("b/own", "own").File("b/.wh..wh..opq", "");
  above.File("none/.wh.x", "").File("x/.wh..wh..opq", "").File(".wh..wh.plnk", "");
  ASSERT_EQ(Unpack(above.Finish()), "");
  EXPECT_TRUE(fs::is_empty(In("a")));
  EXPECT_FALSE(fs::is_symlink(In("link")));
  EXPECT_EQ(Read(In("b/c/new")), "new");
  EXPECT_EQ(Read(In("b/own")), "own");
  EXPECT_FALSE(fs::exists(In("b/one")));
  EXPECT_FALSE(fs::exists(In("b/c/two")));
  EXPECT_EQ(Read(In("plain")), "x");
  // In an archive that is no layer such names are names.
  ASSERT_EQ(Unpack(TarWriter().File(".wh.plain", "").Finish(), ArchiveKind::kPlain), "");
  EXPECT_EQ(Read(In("plain")), "x");
  EXPECT_TRUE(fs::exists(In(".wh.plain")));
}

TEST_F(LayerReaderTest, NothingLeavesTheTree) {
  EXPECT_TRUE(Has(Unpack(TarWriter().File("../outside", "x").Finish()), "a path with \"..\""));
  EXPECT_TRUE(Has(Unpack(TarWriter().File("a/../../outside", "x").Finish()), "\"..\""));
  EXPECT_EQ(Unpack(TarWriter().File("/outside", "inside").Finish()), "");
  EXPECT_EQ(Read(In("outside")), "inside");
  // A link out of it leads to the tree's own root.
  TarWriter links;
  links.Link("up", "../..").Link("abs", top_).Link("file", top_ + "/outside");
  links.File("up/by-up", "1").File("file", "replaced");
  EXPECT_EQ(Unpack(links.Finish()), "");
  EXPECT_EQ(Read(In("by-up")), "1");
  EXPECT_EQ(Read(In("file")), "replaced");
  EXPECT_NE(Unpack(TarWriter().File("abs/outside", "x").Finish()), "");
  EXPECT_TRUE(Has(Unpack(TarWriter().HardLink("h", "../outside").Finish()), "\"..\""));
  EXPECT_TRUE(Has(Unpack(TarWriter().HardLink("h", "up/../../outside").Finish()), "\"..\""));
  EXPECT_TRUE(Has(Unpack(TarWriter().HardLink("h", "abs/outside").Finish()), "is not there"));
  // A hard link to a symbolic link is one to the link, and a write to it replaces that.
  EXPECT_EQ(
      Unpack(TarWriter().Link("s", top_ + "/outside").HardLink("h", "s").File("h", "x").Finish()),
      "");
  EXPECT_EQ(Unpack(TarWriter().File("up/.wh.nothing", "").File("abs/.wh.outside", "").Finish()),
            "");
  EXPECT_TRUE(Has(Unpack(TarWriter().File("a/.wh...", "").Finish()), "whiteout of nothing"));
  EXPECT_TRUE(Has(Unpack(TarWriter().File(".wh.", "").Finish()), "whiteout of nothing"));
}

TEST_F(LayerReaderTest, LinksThatEndNowhereAreOneLine) {
  TarWriter loop;
  loop.Link("a", "b").Link("b", "a").File("a/x", "x");
  EXPECT_TRUE(Has(Unpack(loop.Finish()), "layer, entry \"a/x\": "));
  EXPECT_TRUE(Has(Unpack(TarWriter().HardLink("h", "none").Finish()), "is not there"));
  EXPECT_TRUE(Has(Unpack(TarWriter().Folder("f").HardLink("h", "f").Finish()), "a folder"));
  EXPECT_TRUE(Has(Unpack(TarWriter().File("f2", "x").File("f2/x", "x").Finish()), "f2"));
  EXPECT_TRUE(Has(Unpack(TarWriter().Link("dev", "/").File("dev/x", "x").Finish()), "dev"));
}

TEST_F(LayerReaderTest, BombsMeetALimit) {
  budget_.bytes = 1 << 20;
  // A sparse file of a petabyte, of which the archive has nothing.
  TarEntry sparse = {.path = "s", .content = "0\n"};
  sparse.content.resize(512, '\0');
  sparse.pax = {{"GNU.sparse.major", "1"},
                {"GNU.sparse.minor", "0"},
                {"GNU.sparse.name", "sparse"},
                {"GNU.sparse.realsize", "1125899906842624"}};
  EXPECT_TRUE(Has(Unpack(TarWriter().Add(sparse).Finish()), "may be unpacked"));
  const std::string zeros(800'000, '\0');
  TarWriter two;
  two.File("one", zeros).File("two", zeros);
  EXPECT_TRUE(Has(Unpack(testing::Gzip(two.Finish())), "layer, entry \"two\": has 800000 bytes"));
  budget_.entries = 3;
  TarWriter many;
  for (int i = 0; i < 5; ++i) many.Folder(std::to_string(i));
  EXPECT_TRUE(Has(Unpack(many.Finish()), "too many entries"));
  budget_ = {};
  TarEntry huge = {.path = "x", .pax = {{"comment", std::string(8 << 20, 'c')}}};
  (void)Unpack(TarWriter().Add(huge).Finish());
  EXPECT_NE(Unpack(TarWriter().Add({.path = std::string(5000, 'p')}).Finish()), "");
  std::string deep;
  for (int i = 0; i < 2040; ++i) deep += "d/";
  (void)Unpack(TarWriter().Folder(deep).Finish());
  EXPECT_NE(Unpack(TarWriter().Add({.path = "u", .uid = uint64_t{1} << 40}).Finish()), "");
}

TEST_F(LayerReaderTest, DamagedArchivesAreOneLine) {
  TarWriter tar;
  tar.File("file", std::string(3000, 'x')).Folder("a").Link("l", "a");
  const std::string whole = tar.Finish();
  for (size_t size = 1; size < 3500; size += 111) {
    std::string error = Unpack(whole.substr(0, size));
    EXPECT_EQ(std::count(error.begin(), error.end(), '\n'), 0) << error;
  }
  std::string packed = testing::Gzip(whole);
  EXPECT_NE(Unpack(packed.substr(0, packed.size() / 2)), "");
  packed[packed.size() / 2] ^= 0x55;
  EXPECT_NE(Unpack(packed), "");
  EXPECT_NE(Unpack(std::string(5000, 'j')), "");
}

}  // namespace
}  // namespace cube::templates
