#ifndef CUBE_TEMPLATES_IMAGE_SOURCE_H_
#define CUBE_TEMPLATES_IMAGE_SOURCE_H_

#include <string>
#include <vector>

#include "base/result.h"
#include "snapshot/defaults.h"
#include "templates/layer_reader.h"
#include "templates/tree.h"

namespace cube::templates {

// A container image as it lies in a folder: an OCI image layout (OCI image specification 1.1,
// image-layout.md), or what `docker save` puts in its tar. Everything in it may be hostile.
class ImageSource {
 public:
  struct Layer {
    std::string path;    // in the folder
    std::string digest;  // of the file, or, if `unpacked`, of what it is when it is not compressed
    bool unpacked = false;
  };

  // Reads what is in `folder`. `name` is which of several: "" if there is one. Errors name the
  // file, or the names there are.
  static Result<ImageSource> Open(Tree folder, const std::string& name);

  // What tells it from every other: a digest.
  const std::string& id() const { return id_; }
  const snapshot::Defaults& defaults() const { return defaults_; }
  const std::vector<Layer>& layers() const { return layers_; }

  // Unpacks the layers, the lowest first, each after its digest has been found right.
  Status Unpack(const Tree& into, UnpackBudget* budget) const;

 private:
  explicit ImageSource(Tree folder) : folder_(std::move(folder)) {}

  Status OpenOci(const std::string& name);
  Status OpenDocker(const std::string& name);
  Status OpenIndex(const std::string& text, const std::string& name, int depth);
  Status OpenManifest(const std::string& text);
  // The bytes of a blob, checked; of one that is JSON and so is not large.
  Result<std::string> ReadBlob(const std::string& digest) const;
  Result<std::string> ReadJson(const std::string& path) const;

  Tree folder_;
  std::string id_;
  snapshot::Defaults defaults_;
  std::vector<Layer> layers_;
};

}  // namespace cube::templates

#endif  // CUBE_TEMPLATES_IMAGE_SOURCE_H_
