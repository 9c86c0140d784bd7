// Changes of a file through a descriptor that is open for reading only.
#define GROUP "descriptors"
#include "attack.h"

#define KERNEL "the injected descriptor has only the rights that were judged"
#define JUDGED "changes through a descriptor are judged as writes"
#define GUARD "filter: ioctls that change an inode"

ATTACK(ftruncate_reader, kTainted, KERNEL) {
  int fd = open(kTarget, O_RDONLY);
  long r =
      ftruncate(fd, 0) && fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 4) ? -1 : 0;
  return worked("ftruncate", r);
}
ATTACK(mmap_reader, kTainted, KERNEL) {
  int fd = open(kTarget, O_RDONLY);
  char* at = mmap(0, 4096, PROT_READ, MAP_SHARED, fd, 0);
  if (at == MAP_FAILED) return worked("mmap", -1);
  return worked("mprotect", mprotect(at, 4096, PROT_READ | PROT_WRITE));
}
ATTACK(clone_range_into_reader, kTainted, KERNEL) {
  int in = open("/etc/passwd", O_RDONLY), out = open(kTarget, O_RDONLY);
  if (ioctl(out, FICLONE, in) == 0) return SAY("FICLONE done"), VIOLATION;
  return worked("copy_file_range", copy_file_range(in, 0, out, 0, 4, 0));
}
ATTACK(splice_into_reader, kTainted, KERNEL) {
  int pair[2];
  if (pipe(pair) || write(pair[1], "EVIL", 4) != 4) return SKIP;
  return worked("splice", splice(pair[0], 0, open(kTarget, O_RDONLY), 0, 4, 0));
}
ATTACK(fcntl_adds_no_right, kTainted, KERNEL) {
  int fd = open(kTarget, O_RDONLY);
  fcntl(fd, F_SETFL, O_RDWR | O_APPEND);
  return writes(fd);
}
ATTACK(fchmod_reader, kTainted | kBare, JUDGED) {
  return worked("fchmod", fchmod(open(kTarget, O_RDONLY), 0777));
}
ATTACK(fchmod_directory, kTainted | kBare, JUDGED) {
  return worked("fchmod", fchmod(open("src", O_RDONLY), 0777));
}
ATTACK(fchown_reader, kTainted | kBare, JUDGED) {
  return worked("fchown", fchown(open(kTarget, O_RDONLY), -1, getgid()));
}
ATTACK(fchownat_empty_path, kTainted | kBare, JUDGED) {
  return worked("fchownat", fchownat(open(kTarget, O_PATH), "", -1, getgid(), AT_EMPTY_PATH));
}
ATTACK(fsetxattr_reader, kTainted | kBare, JUDGED) {
  const long r = fsetxattr(open(kTarget, O_RDONLY), "user.evil", "x", 1, 0);
  if (r < 0 && errno == EOPNOTSUPP) return SAY("no xattrs here"), SKIP;
  return worked("fsetxattr", r);
}
ATTACK(futimens_reader, kTainted | kBare, JUDGED) {
  struct timespec t[2] = {{1, 0}, {1, 0}};
  return worked("futimens", futimens(open(kTarget, O_RDONLY), t));
}
ATTACK(inode_flags, kTainted | kBare, GUARD) {
  int fd = open(kTarget, O_RDONLY), flags = 0;
  if (ioctl(fd, FS_IOC_GETFLAGS, &flags)) return SAY("no inode flags here"), SKIP;
  flags |= FS_NODUMP_FL;
  return worked("FS_IOC_SETFLAGS", ioctl(fd, FS_IOC_SETFLAGS, &flags));
}
ATTACK(project_flags, kTainted | kBare, GUARD) {
  int fd = open(kTarget, O_RDONLY);
  struct fsxattr x;
  if (ioctl(fd, FS_IOC_FSGETXATTR, &x)) return SAY("no extended flags here"), SKIP;
  x.fsx_xflags |= FS_XFLAG_NODUMP;
  return worked("FS_IOC_FSSETXATTR", ioctl(fd, FS_IOC_FSSETXATTR, &x));
}
ATTACK(inode_version, kTainted | kBare, GUARD) {
  int fd = open(kTarget, O_RDONLY), version = 7;
  const long r = ioctl(fd, _IOW('v', 2, long), &version);
  if (r < 0 && is_bare()) return SAY("no inode versions here: %s", strerror(errno)), SKIP;
  return worked("FS_IOC_SETVERSION", r);
}
// ext4 has a number of its own for the same; file labels are found by the inode's version where
// there is one.
ATTACK(inode_version_of_ext4, kTainted | kBare, GUARD) {
  int fd = open(kTarget, O_RDONLY), version = 7;
  const long r = ioctl(fd, _IOW('f', 4, long), &version);
  if (r < 0 && is_bare()) return SAY("no inode versions here: %s", strerror(errno)), SKIP;
  return worked("EXT4_IOC_SETVERSION", r);
}
ATTACK(mode_by_empty_path, kTainted, JUDGED) {
  return worked("fchmodat2", syscall(452, open(kTarget, O_PATH), "", 0777, AT_EMPTY_PATH));
}
ATTACK(times_by_empty_path, kTainted | kBare, JUDGED) {
  const struct timespec t[2] = {{1, 0}, {1, 0}};
  return worked("utimensat", utimensat(open(kTarget, O_PATH), "", t, AT_EMPTY_PATH));
}
