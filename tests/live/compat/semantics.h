/* What the parts of the file-system semantics matrix share: a directory of objects of every kind, and lines.
 *
 * The program performs calls on the objects and prints one line for each: the call with its arguments, its
 * result, the errno, and what a success left behind. run.py runs it natively and hosted, in the same path and
 * as the same user, and compares the two outputs line by line.
 */
#pragma once

#include <stddef.h>
#include <sys/types.h>

struct Object {
  const char* label;
  const char* path; /* relative to the directory of objects, unless it says otherwise */
};

extern const struct Object kObjects[];
extern const size_t kObjectCount;

/* Empties the current directory and makes the objects in it again, if anything was changed since. */
void fresh_objects(void);
/* The objects are not what they were: the next fresh_objects() has work to do. */
void changed(void);

/* Whether the next combination of a matrix is wanted: every one, or each STRIDE-th. */
int wanted(void);

/* One line: the call, its result and errno, and `after` (may be empty). */
void line(const char* call, long result, int error, const char* after);
/* The same for a call made here: its errno and what comes after are read once it is over. */
#define CALL(what, call, after)                  \
  do {                                           \
    const char* what_ = (what);                  \
    const long result_ = (long)(call);           \
    const int error_ = errno;                    \
    line(what_, result_, error_, (after));       \
  } while (0)
/* printf into one of a few static buffers. */
const char* text(const char* format, ...) __attribute__((format(printf, 1, 2)));
/* What a descriptor is: type, mode, size, status flags, descriptor flags. */
const char* describe_fd(int fd);
/* What a name is: type, mode, links, size, owner. "none" when it is not there. */
const char* describe_path(const char* path);
/* Ends the program: an arrangement of the test itself, not a call under test, went wrong. */
void must(int condition, const char* what);
/* Runs `body` in a child with every buffer flushed; returns its wait status. */
int in_child(void (*body)(const void*), const void* argument);

void open_matrix(void);
void change_matrix(void);
void descriptor_cases(void);
void exec_cases(void);
void socket_cases(void);
