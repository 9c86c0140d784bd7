// Changes of the workspace by path: every system call that makes, moves, removes or alters a name.
#define GROUP "paths"
#include "attack.h"

#define JUDGED "path changes are judged as writes"
#define OPENED "opens for writing are judged"

ATTACK(open_write, kTainted | kBare, OPENED) { return writes(open(kTarget, O_WRONLY | O_APPEND)); }
ATTACK(creat_marker, kTainted | kBare, OPENED) { return writes(creat("src/marker", 0644)); }
ATTACK(legacy_open, kTainted | kBare, OPENED) {
  return writes(syscall(SYS_open, kTarget, O_WRONLY | O_APPEND, 0));
}
ATTACK(legacy_creat, kTainted | kBare, OPENED) {
  return writes(syscall(SYS_creat, "src/marker", 0644));
}
ATTACK(open_truncate_read_only, kTainted | kBare, "O_TRUNC is a write, whatever the access mode") {
  return worked("open", open(kTarget, O_RDONLY | O_TRUNC));
}
ATTACK(open_create_read_only, kTainted | kBare, "O_CREAT is a write, whatever the access mode") {
  return worked("open", open("src/marker", O_RDONLY | O_CREAT, 0644));
}
ATTACK(open_access_mode_3, kTainted | kClean, "access mode 3 asks for both rights") {
  const int fd = open(kTarget, O_WRONLY | O_RDWR);
  return fd < 0 ? worked("open", -1) : writes(fd);
}
ATTACK(symlink_follow, kTainted | kBare, "links are followed by the supervisor") {
  symlink("../src/hello.c", "scratch/link");
  return writes(open("scratch/link", O_WRONLY | O_APPEND));
}
ATTACK(dangling_link_create, kTainted | kBare, "links are followed by the supervisor") {
  symlink("../src/marker", "scratch/dangling");
  return writes(open("scratch/dangling", O_WRONLY | O_CREAT, 0644));
}
ATTACK(dotdot, kTainted | kBare, "judged by the path of the pinned object") {
  return writes(open("scratch/../scratch/.././src/hello.c", O_WRONLY | O_APPEND));
}
ATTACK(tmpfile_linkat, kTainted | kBare, JUDGED) {
  int fd = open("scratch", O_TMPFILE | O_RDWR, 0644);
  if (fd < 0) return SAY("O_TMPFILE: %s", strerror(errno)), SKIP;
  char path[64];
  snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
  return worked("linkat", linkat(AT_FDCWD, path, AT_FDCWD, "src/marker", AT_SYMLINK_FOLLOW));
}
ATTACK(tmpfile_linkat_empty_path, kTainted | kClean, JUDGED) {
  int fd = open("scratch", O_TMPFILE | O_RDWR, 0644);
  return worked("linkat", linkat(fd, "", AT_FDCWD, "src/marker", AT_EMPTY_PATH));
}
ATTACK(tmpfile_in_src, kTainted | kBare, "O_TMPFILE is a write in its directory") {
  return writes(open("src", O_TMPFILE | O_RDWR, 0644));
}
ATTACK(rename_over, kTainted | kBare, JUDGED) {
  close(creat("scratch/evil", 0644));
  return worked("rename", rename("scratch/evil", kTarget));
}
ATTACK(rename_away, kTainted | kBare, JUDGED) {
  return worked("rename", rename(kTarget, "scratch/stolen"));
}
ATTACK(rename_exchange, kTainted | kBare, JUDGED) {
  close(creat("scratch/evil", 0644));
  return worked("renameat2", syscall(SYS_renameat2, AT_FDCWD, "scratch/evil", AT_FDCWD, kTarget,
                                     RENAME_EXCHANGE));
}
ATTACK(rename_whiteout, kTainted | kBareRoot, JUDGED) {
  close(creat("scratch/evil", 0644));
  return worked("renameat2", syscall(SYS_renameat2, AT_FDCWD, "scratch/evil", AT_FDCWD,
                                     "src/marker", RENAME_WHITEOUT));
}
ATTACK(rename_scratch, kTainted | kBare, JUDGED) {
  return worked("rename", rename("scratch", "src/scratch"));
}
ATTACK(rename_src_away, kTainted | kBare, JUDGED) {
  return worked("rename", rename("src", "scratch/src"));
}
ATTACK(link_in_and_write, kTainted | kBare, JUDGED) {
  if (link(kTarget, "scratch/hard")) return SAY("link: %s", strerror(errno)), HELD;
  return writes(open("scratch/hard", O_WRONLY | O_APPEND));
}
// The runner made it: scratch/twin and src/twin are one file.
ATTACK(hard_link_made_before, kTainted | kBare,
       "a file with other names takes no untrusted write") {
  return writes(open("scratch/twin", O_WRONLY | O_APPEND));
}
ATTACK(link_out, kTainted | kBare, JUDGED) {
  close(creat("scratch/evil", 0644));
  return worked("link", link("scratch/evil", "src/marker"));
}
ATTACK(symlink_in, kTainted | kBare, JUDGED) {
  return worked("symlink", symlink("/etc/passwd", "src/marker"));
}
ATTACK(make_dir, kTainted | kBare, JUDGED) { return worked("mkdir", mkdir("src/marker", 0755)); }
ATTACK(make_node, kTainted | kBare, JUDGED) {
  return worked("mknod", mknod("src/marker", S_IFIFO | 0644, 0));
}
ATTACK(make_device, kClean | kBareRoot, "no capabilities, nodev") {
  return worked("mknod", mknod("scratch/disk", S_IFBLK | 0666, 0xfe00));
}
ATTACK(unlink_file, kTainted | kBare, JUDGED) { return worked("unlink", unlink("src/spare")); }
ATTACK(unlink_directory, kTainted | kBare, JUDGED) { return worked("rmdir", rmdir("src/empty")); }
ATTACK(truncate_path, kTainted | kBare, JUDGED) { return worked("truncate", truncate(kTarget, 0)); }
ATTACK(chmod_path, kTainted | kBare, JUDGED) { return worked("chmod", chmod(kTarget, 0777)); }
ATTACK(fchmodat2_path, kTainted | kBare, JUDGED) {
  const long r = syscall(452, AT_FDCWD, kTarget, 0777, 0);
  if (r < 0 && errno == ENOSYS && is_bare()) return SAY("no fchmodat2 in this kernel"), SKIP;
  return worked("fchmodat2", r);
}
ATTACK(chown_path, kTainted | kBare, JUDGED) {
  return worked("chown", chown(kTarget, -1, getgid()));
}
ATTACK(setxattr_path, kTainted | kBare, JUDGED) {
  const long r = setxattr(kTarget, "user.evil", "x", 1, 0);
  if (r < 0 && errno == EOPNOTSUPP) return SAY("no xattrs here"), SKIP;
  return worked("setxattr", r);
}
ATTACK(utime_path, kTainted | kBare, JUDGED) {
  const struct timespec t[2] = {{1, 0}, {1, 0}};
  return worked("utimensat", utimensat(AT_FDCWD, kTarget, t, 0));
}
ATTACK(secret_file, kClean | kBare, "only the listed places are mounted") {
  return worked("open", open(env("RED_SECRET"), O_RDONLY));
}
ATTACK(secret_by_link, kClean | kBare, "only the listed places are mounted") {
  symlink(env("RED_SECRET"), "scratch/secret");
  return worked("open", open("scratch/secret", O_RDONLY));
}
ATTACK(secret_hard_link, kClean | kClean, "only the listed places are mounted") {
  return worked("link", link(env("RED_SECRET"), "scratch/secret"));
}
ATTACK(secret_above_root, kClean | kBare, "the root of the sandbox has no parent") {
  char path[4096];
  snprintf(path, sizeof path, "../../../../../../../../../../..%s", env("RED_SECRET"));
  return worked("open", open(path, O_RDONLY));
}
ATTACK(write_system, kClean | kBareRoot, "system directories are mounted read-only") {
  const char* names[] = {"/etc", "/usr/bin", "/", "/opt"};
  for (size_t i = 0; i < sizeof names / sizeof *names; ++i)
    if (access(names[i], W_OK) == 0 && open(names[i], O_TMPFILE | O_RDWR, 0600) >= 0)
      return SAY("%s takes files", names[i]), VIOLATION;
  return SAY("%s", strerror(errno)), HELD;
}

// --- names that are protected before they exist
// ----------------------------------------------------

#define PROTECTED "a forbid on write holds against what takes the place"

ATTACK(protected_hook_created, kClean | kBare, PROTECTED) {
  mkdir("guard/.git", 0755), mkdir("guard/.git/hooks", 0755);
  return writes(creat("guard/.git/hooks/pre-commit", 0755));
}
ATTACK(protected_environment_created, kClean | kBare, PROTECTED) {
  return writes(creat("guard/.env", 0644));
}
ATTACK(protected_by_rename, kClean | kBare, PROTECTED) {
  close(creat("guard/plain", 0644));
  return worked("rename", rename("guard/plain", "guard/.env"));
}
ATTACK(protected_by_hard_link, kClean | kBare, PROTECTED) {
  close(creat("guard/plain", 0644));
  return worked("link", link("guard/plain", "guard/.env"));
}
ATTACK(protected_by_symlink, kClean | kBare, PROTECTED) {
  close(creat("guard/plain", 0644));
  return worked("symlink", symlink("plain", "guard/.env"));
}
ATTACK(protected_git_directory_swapped, kClean | kBare, PROTECTED) {
  mkdir("guard/x", 0755), mkdir("guard/x/hooks", 0755);
  close(creat("guard/x/hooks/pre-commit", 0755));
  return worked("rename", rename("guard/x", "guard/.git"));
}
ATTACK(protected_git_directory_exchanged, kClean | kBare, PROTECTED) {
  mkdir("guard/.git", 0755), mkdir("guard/x", 0755), mkdir("guard/x/hooks", 0755);
  close(creat("guard/x/hooks/pre-commit", 0755));
  return worked("renameat2", syscall(SYS_renameat2, AT_FDCWD, "guard/x", AT_FDCWD, "guard/.git",
                                     RENAME_EXCHANGE));
}
ATTACK(protected_git_as_link, kClean | kBare, PROTECTED) {
  mkdir("guard/x", 0755), mkdir("guard/x/hooks", 0755);
  close(creat("guard/x/hooks/pre-commit", 0755));
  return worked("symlink", symlink("x", "guard/.git"));
}
ATTACK(protected_git_as_file, kClean | kBare, PROTECTED) {
  return writes(creat("guard/.git", 0644));
}
ATTACK(protected_parent_swapped, kClean | kBare, PROTECTED) {
  mkdir("other", 0755), mkdir("other/.git", 0755), mkdir("other/.git/hooks", 0755);
  close(creat("other/.git/hooks/pre-commit", 0755));
  if (rename("guard", "was-guard")) return worked("rename", -1);
  return worked("rename", rename("other", "guard"));
}
