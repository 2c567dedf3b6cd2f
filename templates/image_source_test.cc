#include "templates/image_source.h"

#include <fcntl.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "templates/image_config.h"
#include "templates/testing/tar_writer.h"

namespace cube::templates {
namespace {

namespace fs = std::filesystem;
using testing::TarWriter;

constexpr const char* kConfig =
    "{\"Env\":[\"PATH=/bin\",\"A=1\"],\"WorkingDir\":\"/srv\",\"User\":\"app:web\","
    "\"Entrypoint\":[\"/bin/run\"],\"Cmd\":[\"-v\",\"x\"],\"ExposedPorts\":{\"80/tcp\":{}}}";

class ImageSourceTest : public ::testing::Test {
 protected:
  void SetUp() override {
    top_ = ::testing::TempDir() + "/image_source";
    fs::remove_all(top_);
    fs::create_directories(top_ + "/tree");
    layers_[0] = TarWriter().File("one", "1").File("two", "2").Finish();
    layers_[1] = TarWriter().File(".wh.two", "").File("three", "3").Finish();
  }
  Result<ImageSource> Open(const std::string& name = "") {
    auto tree = Tree::Open(top_ + "/image");
    if (!tree.ok()) return tree.error();
    return ImageSource::Open(std::move(*tree), name);
  }
  std::string Unpacked(const ImageSource& source) {
    auto tree = Tree::Open(top_ + "/tree");
    UnpackBudget budget;
    Status status = source.Unpack(*tree, &budget);
    return status.ok() ? "" : status.error().message();
  }
  // The error of opening it, or of unpacking.
  std::string WhatIsWrong(const std::string& name = "") {
    auto source = Open(name);
    return source.ok() ? Unpacked(*source) : source.error().message();
  }
  static bool Has(const std::string& text, const std::string& part) {
    return text.find(part) != std::string::npos;
  }
  void Replace(const std::string& file, const std::string& from, const std::string& to) {
    std::ifstream in(top_ + "/image/" + file);
    std::string text{std::istreambuf_iterator<char>(in), {}};
    size_t at = text.find(from);
    ASSERT_NE(at, std::string::npos) << text;
    text.replace(at, from.size(), to);
    testing::WriteFile(top_ + "/image/" + file, text);
  }
  std::string top_;
  std::map<int, std::string> layers_;
};

TEST_F(ImageSourceTest, AnOciLayout) {
  for (bool compress : {false, true}) {
    fs::remove_all(top_ + "/image");
    fs::remove_all(top_ + "/tree");
    fs::create_directories(top_ + "/tree");
    testing::WriteOciLayout(top_ + "/image", layers_, kConfig, compress);
    auto source = Open();
    ASSERT_TRUE(source.ok()) << source.error().message();
    EXPECT_EQ(source->defaults().environment, (std::vector<std::string>{"PATH=/bin", "A=1"}));
    EXPECT_EQ(source->defaults().directory, "/srv");
    EXPECT_EQ(source->defaults().user, "app:web");
    EXPECT_EQ(source->defaults().entrypoint, (std::vector<std::string>{"/bin/run"}));
    EXPECT_EQ(source->defaults().command, (std::vector<std::string>{"-v", "x"}));
    EXPECT_EQ(Unpacked(*source), "");
    EXPECT_TRUE(fs::exists(top_ + "/tree/three"));
    EXPECT_FALSE(fs::exists(top_ + "/tree/two"));
  }
  EXPECT_TRUE(Open("latest").ok());
  EXPECT_EQ(WhatIsWrong("other"), "there is no image \"other\", only latest");
}

TEST_F(ImageSourceTest, WhatDockerSaves) {
  testing::WriteFile(top_ + "/save.tar", testing::DockerArchive(layers_, kConfig, "app:1"));
  fs::create_directories(top_ + "/image");
  auto tree = Tree::Open(top_ + "/image");
  auto fd = OpenFile(top_ + "/save.tar", O_RDONLY);
  UnpackBudget budget;
  ASSERT_TRUE(UnpackArchive(fd->get(), "save", ArchiveKind::kPlain, *tree, &budget).ok());
  EXPECT_EQ(WhatIsWrong("app:1"), "");
  EXPECT_TRUE(fs::exists(top_ + "/tree/three"));
  EXPECT_FALSE(fs::exists(top_ + "/tree/two"));
  EXPECT_EQ(WhatIsWrong("app:2"), "there is no image \"app:2\", only app:1");
  // A layer of older versions is a link to that of another image; compressed it is the same.
  testing::WriteFile(top_ + "/image/packed", testing::Gzip(layers_[0]));
  fs::remove(top_ + "/image/layer0/layer.tar");
  fs::create_symlink("../packed", top_ + "/image/layer0/layer.tar");
  EXPECT_EQ(WhatIsWrong(), "");
  testing::WriteFile(top_ + "/image/packed", testing::Gzip(layers_[1]));
  EXPECT_TRUE(Has(WhatIsWrong(), "does not have its digest"));
  testing::WriteFile(top_ + "/outside", layers_[0]);
  fs::remove(top_ + "/image/layer0/layer.tar");
  fs::create_symlink("../../outside", top_ + "/image/layer0/layer.tar");
  EXPECT_NE(WhatIsWrong(), "");
  Replace("manifest.json", "layer1/layer.tar", "../outside/../../");
  EXPECT_NE(WhatIsWrong(), "");
}

TEST_F(ImageSourceTest, WrongDigestsAreNamed) {
  testing::WriteOciLayout(top_ + "/image", layers_, kConfig, false);
  const std::string layer = "blobs/sha256/" + testing::Sha256Of(layers_[1]);
  Replace(layer, "three", "THREE");
  EXPECT_TRUE(Has(WhatIsWrong(), "does not have its digest"));
  Replace("index.json", "sha256:", "sha512:");
  EXPECT_TRUE(Has(WhatIsWrong(), "64 hexadecimal digits"));
  Replace("index.json", "sha512:", "sha256:../../");
  EXPECT_TRUE(Has(WhatIsWrong(), "64 hexadecimal digits"));
  for (const auto& entry : fs::directory_iterator(top_ + "/image/blobs/sha256")) {
    testing::WriteFile(entry.path(), "{}");
  }
  Replace("index.json", "sha256:../../", "sha256:");
  EXPECT_TRUE(Has(WhatIsWrong(), "does not have its digest"));
}

TEST_F(ImageSourceTest, WhatIsNoImageIsOneLine) {
  fs::create_directories(top_ + "/image");
  EXPECT_TRUE(Has(WhatIsWrong(), "neither an OCI layout nor what 'docker save' writes"));
  for (const char* text :
       {"", "{", "[]", "{}", "{\"manifests\":1}", "{\"manifests\":[]}", "{\"manifests\":[1]}",
        "{\"manifests\":[{}]}", "{\"manifests\":[{\"digest\":1}]}",
        "{\"manifests\":[{\"platform\":{\"os\":\"plan9\"},\"digest\":\"x\"}]}"}) {
    testing::WriteFile(top_ + "/image/index.json", text);
    std::string error = WhatIsWrong();
    EXPECT_NE(error, "") << text;
    EXPECT_EQ(error.find('\n'), std::string::npos);
  }
  fs::remove(top_ + "/image/index.json");
  for (const char* text : {"", "{}", "[]", "[1]", "[{}]", "[{\"Config\":\"manifest.json\"}]"}) {
    testing::WriteFile(top_ + "/image/manifest.json", text);
    EXPECT_NE(WhatIsWrong(), "") << text;
  }
  testing::WriteFile(top_ + "/image/manifest.json", std::string(5 << 20, ' '));
  EXPECT_NE(WhatIsWrong(), "");
}

TEST(ImageConfigTest, WhatIsWrongIsNamed) {
  auto error = [](const std::string& text) {
    auto config = ImageConfig::Parse(text);
    return config.ok() ? "" : config.error().message();
  };
  const std::string machine = "{\"os\":\"linux\",\"architecture\":\"amd64\"";
  EXPECT_EQ(error(machine + "}"), "");
  EXPECT_EQ(error(machine + ",\"config\":null}"), "");
  EXPECT_EQ(error(machine + ",\"config\":{\"Cmd\":null,\"Env\":null}}"), "");
  EXPECT_EQ(error("{\"os\":\"linux\",\"architecture\":\"arm64\"}"),
            "an image for linux/arm64, not for linux/amd64");
  EXPECT_EQ(error(machine + ",\"config\":{\"Env\":\"A=1\"}}"), "\"Env\" is not a list");
  EXPECT_EQ(error(machine + ",\"config\":{\"Env\":[1]}}"), "\"Env\" is not a list of strings");
  EXPECT_EQ(error(machine + ",\"config\":{\"Env\":[\"A\"]}}"), "variable \"A\" is not NAME=VALUE");
  EXPECT_EQ(error(machine + ",\"config\":{\"User\":5}}"), "\"User\" is not a string");
  EXPECT_EQ(error(machine + ",\"config\":{\"User\":\"a\\u0000b\"}}"), "\"User\" has a zero byte");
  EXPECT_NE(error(machine + ",\"config\":{\"WorkingDir\":\"srv\"}}"), "");
  EXPECT_NE(error(std::string(100, '[')), "");
  EXPECT_NE(error(machine + ",\"config\":{\"Env\":[\"A=" + std::string(7000, 'x') + "\"]}}"), "");
}

}  // namespace
}  // namespace cube::templates
