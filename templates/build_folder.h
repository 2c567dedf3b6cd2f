#ifndef CUBE_TEMPLATES_BUILD_FOLDER_H_
#define CUBE_TEMPLATES_BUILD_FOLDER_H_

#include <string>

#include "base/result.h"
#include "base/unique_fd.h"

namespace cube::templates {

// Where builds keep what they make, $CUBE_HOME/builds:
//
//   images/KEY.ext4, KEY.json   the disk of a container image, and the defaults that it has
//   layers/KEY                  what a step has changed on the disk before it
//   logs/NAME.log               of the last build of that template
//   locks/NAME, work/NAME       while one is under way
//
// Files in images and layers are never changed or replaced: templates know them by inode and time.
class BuildFolder {
 public:
  // For the build of template `name`, of which there is one at a time; an error says so. What a
  // build that was killed has left of its work is deleted.
  static Result<BuildFolder> Open(const std::string& home, const std::string& name);

  // Deletes the folder for the work. Whoever has opened this does so in the end.
  void Clean() const;

  const std::string& work() const { return work_; }  // empty at first, only for its owner
  std::string image(const std::string& key) const { return top_ + "/images/" + key + ".ext4"; }
  std::string image_about(const std::string& key) const {
    return top_ + "/images/" + key + ".json";
  }
  std::string layer(const std::string& key) const { return top_ + "/layers/" + key; }
  std::string log() const { return top_ + "/logs/" + name_ + ".log"; }

 private:
  BuildFolder() = default;

  std::string top_, name_, work_;
  UniqueFd lock_;
  UniqueFd shared_;  // while it is held nothing of images and layers is deleted
};

// Gives the file `from` the name `to`, with nobody to write it any more and all of it on the disk.
// If somebody was quicker, theirs stays.
Status PublishFile(const std::string& from, const std::string& to);

}  // namespace cube::templates

#endif  // CUBE_TEMPLATES_BUILD_FOLDER_H_
