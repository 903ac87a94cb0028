package namespace

import (
	"time"

	"millrace/hdfs"
)

// Command is one entry of the log. Time and random names are in it before it is logged. What its comment says of
// repeating holds for one that was logged twice as nobody knew what became of the first. Errors wrap those of
// package hdfs. Commands are passed by value.
type Command interface {
	CommandName() string
	// In is the id of the cluster whose name space it is for.
	In() string
}

// CreateFile begins a hidden file and gives its id (hdfs.FileID). The same writer (lease, path and all else) gets
// the same file again until it has its first block. ErrBusy if the path has another writer; ErrExist, ErrIsDir, ErrNotDir if
// the path is taken. An upload (Group is set) has no such checks before its group is published, and a path may have
// several; ErrLease if its group was.
type CreateFile struct {
	Cluster     string `json:"cluster"`
	Path        string `json:"path"`
	Lease       string `json:"lease"`
	Replication int    `json:"replication,omitempty"` // 0: hdfs.DefaultReplication
	BlockSize   int64  `json:"blockSize,omitempty"`   // bytes, whole chunks; 0: hdfs.DefaultBlockSize
	Overwrite   bool   `json:"overwrite,omitempty"`
	Group       string `json:"group,omitempty"`
	Task        string `json:"task,omitempty"`
}

// AddBlock makes the block before final (nil: there is none) and begins another one (hdfs.Located without nodes). Only
// full blocks can be followed by another. The same block before gives the same one again.
type AddBlock struct {
	Cluster string      `json:"cluster"`
	File    hdfs.FileID `json:"file"`
	Lease   string      `json:"lease"`
	Prev    *hdfs.Block `json:"prev,omitempty"`
}

// Restamp gives the block that is being written a new stamp (hdfs.Located without nodes). Block is the block with the stamp
// that it has; with the one it had just before, it gets no new one, and the answer is the same again.
type Restamp struct {
	Cluster string      `json:"cluster"`
	File    hdfs.FileID `json:"file"`
	Lease   string      `json:"lease"`
	Block   hdfs.Block  `json:"block"` // its size says nothing
}

// CompleteFile makes a file visible, or seals an upload (hdfs.Info). Last is its last block; nil if it has none.
// Whether the path is free is asked again: it is refused as CreateFile is, and the file stays hidden. May be repeated.
type CompleteFile struct {
	Cluster string      `json:"cluster"`
	File    hdfs.FileID `json:"file"`
	Lease   string      `json:"lease"`
	Last    *hdfs.Block `json:"last,omitempty"`
	At      time.Time   `json:"at"`
}

// AbandonFile deletes a file that is being written. One that is not there is no error; one that is visible, or a sealed
// upload, is finished and stays: ErrLease.
type AbandonFile struct {
	Cluster string      `json:"cluster"`
	File    hdfs.FileID `json:"file"`
	Lease   string      `json:"lease"`
}

// ExpireLeases deletes the unfinished files of writers ([]hdfs.FileID: these), uploads not. Entries of the log are to be
// small: whoever has thousands of leases, or of files in AbortUploads, makes several of them.
type ExpireLeases struct {
	Cluster string   `json:"cluster"`
	Leases  []string `json:"leases"`
}

// Mkdir makes a folder and those above it; one that is there is no error.
type Mkdir struct {
	Cluster string    `json:"cluster"`
	Path    string    `json:"path"`
	At      time.Time `json:"at"`
}

// Rename moves a file or folder with all below it to a path that is not there yet: ErrExist; below itself or the root:
// ErrInvalid. The folders above it are made. Below a moved folder paths may become longer than
// hdfs.CleanPath takes: who wants to name such a file moves the folder back. Without a Request, a name that nobody else uses, a
// repetition cannot be told from another request: it is ErrNotExist. The latest 8,192 requests are remembered.
type Rename struct {
	Cluster string    `json:"cluster"`
	From    string    `json:"from"`
	To      string    `json:"to"`
	At      time.Time `json:"at"` // of the folders that are made
	Request string    `json:"request,omitempty"`
}

// Remove deletes a file, or a folder: ErrNotEmpty unless Recursive. It gives what it deleted (hdfs.Usage; nothing
// when it is repeated). ErrChanged if it is not this File; 0: whatever is there. As to Request see Rename.
type Remove struct {
	Cluster   string      `json:"cluster"`
	Path      string      `json:"path"`
	Recursive bool        `json:"recursive,omitempty"`
	Request   string      `json:"request,omitempty"`
	File      hdfs.FileID `json:"file,omitempty"`
}

// SetReplication sets on how many nodes the blocks of a file shall lie.
type SetReplication struct {
	Cluster     string `json:"cluster"`
	Path        string `json:"path"`
	Replication int    `json:"replication"`
}

// Publish makes all uploads of a group visible at their paths: ErrInvalid unless they are Count, all sealed, all below
// Prefix and none at or below the path of another. Prefix becomes a folder. With Replace all else below it is deleted,
// without there must be nothing: ErrNotEmpty. A group is published once: repeating it is no error, and creating another
// upload is ErrLease, as long as it is among the latest 8,192.
type Publish struct {
	Cluster string    `json:"cluster"`
	Group   string    `json:"group"`
	Prefix  string    `json:"prefix"`
	Count   int       `json:"count"`
	Replace bool      `json:"replace,omitempty"`
	At      time.Time `json:"at"`
}

// AbortUploads deletes some uploads of a group, all if none is named. One that is not there is no error.
type AbortUploads struct {
	Cluster string        `json:"cluster"`
	Group   string        `json:"group"`
	Files   []hdfs.FileID `json:"files,omitempty"`
}

func (CreateFile) CommandName() string     { return "CreateFile" }
func (AddBlock) CommandName() string       { return "AddBlock" }
func (Restamp) CommandName() string        { return "Restamp" }
func (CompleteFile) CommandName() string   { return "CompleteFile" }
func (AbandonFile) CommandName() string    { return "AbandonFile" }
func (ExpireLeases) CommandName() string   { return "ExpireLeases" }
func (Mkdir) CommandName() string          { return "Mkdir" }
func (Rename) CommandName() string         { return "Rename" }
func (Remove) CommandName() string         { return "Remove" }
func (SetReplication) CommandName() string { return "SetReplication" }
func (Publish) CommandName() string        { return "Publish" }
func (AbortUploads) CommandName() string   { return "AbortUploads" }

func (c CreateFile) In() string     { return c.Cluster }
func (c AddBlock) In() string       { return c.Cluster }
func (c Restamp) In() string        { return c.Cluster }
func (c CompleteFile) In() string   { return c.Cluster }
func (c AbandonFile) In() string    { return c.Cluster }
func (c ExpireLeases) In() string   { return c.Cluster }
func (c Mkdir) In() string          { return c.Cluster }
func (c Rename) In() string         { return c.Cluster }
func (c Remove) In() string         { return c.Cluster }
func (c SetReplication) In() string { return c.Cluster }
func (c Publish) In() string        { return c.Cluster }
func (c AbortUploads) In() string   { return c.Cluster }
