#ifndef CUBE_API_SANDBOX_NOTES_H_
#define CUBE_API_SANDBOX_NOTES_H_

#include <optional>
#include <string>

namespace cube::api {

// What the endpoint has to know about a sandbox beyond the node's record, which keeps it.
struct SandboxNotes {
  std::string template_id;   // as clients know it
  std::string alias;         // the name it was created by
  bool auto_resume = false;  // a request wakes it
  std::optional<bool> allow_internet_access;
  std::string network;        // the client's object, JSON; "": none
  std::string traffic_token;  // "": everybody may reach its ports
  std::string mask_host;      // the Host that its servers see; "": the client's

  std::string Text() const;
  // Of text that Text() has made; anything else is as no notes.
  static SandboxNotes Parse(const std::string& text);
};

}  // namespace cube::api

#endif  // CUBE_API_SANDBOX_NOTES_H_
