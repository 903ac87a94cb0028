package cli

import (
	"errors"
	"strings"

	"millrace/cmd/cli/files"
	"millrace/hdfs"
)

// fsFault says what an error of the files means on a command line.
func fsFault(err error) error {
	var (
		bucket    *files.MissingBucketError
		missing   *files.NotFoundError
		exists    *files.ExistsError
		folder    *files.FolderError
		notFolder *files.NotFolderError
		itself    *files.OntoItselfError
		stays     *files.StaysError
	)
	switch {
	case err == nil:
		return nil
	case errors.As(err, &bucket):
		return faultf(exitNotFound, "millrace fs mb s3://"+bucket.Bucket, "%s", bucket)
	case errors.As(err, &missing):
		return faultf(exitNotFound, "millrace fs ls "+parentOf(missing.Place), "%s", missing)
	case errors.As(err, &exists):
		return faultf(exitFailed, "name another path, or remove what is there: millrace fs rm "+exists.Place, "%s", exists)
	case errors.As(err, &folder):
		return usagef("repeat with -r", "%s", folder)
	case errors.As(err, &notFolder):
		return faultf(exitFailed, nextOfNotFolder(notFolder), "%s", notFolder)
	case errors.As(err, &stays):
		return usagef("name what is in it: millrace fs ls "+stays.Place, "%s", stays)
	case errors.As(err, &itself) && itself.Move:
		return usagef("name another place to move to", "%s", itself)
	case errors.As(err, &itself):
		return usagef("name another place to copy to", "%s", itself)
	case errors.Is(err, hdfs.ErrNotEmpty):
		return faultf(exitFailed, "repeat with -r", "%s", err)
	case errors.Is(err, hdfs.ErrIsDir):
		return faultf(exitFailed, "name a file below it", "%s", err)
	case errors.Is(err, hdfs.ErrNoReplica):
		return faultf(exitFailed, "millrace fs fsck says what is missing, millrace node list which nodes are away", "%s", err)
	}
	return err
}

func nextOfNotFolder(e *files.NotFolderError) string {
	switch {
	case e.File == "":
		return "millrace fs ls " + parentOf(e.Place)
	case e.Place == e.File+"/":
		return "leave the / behind its name away: " + e.File
	}
	return "name another path; millrace fs stat " + e.File + " shows the file"
}

func parentOf(place string) string {
	if scheme, rest, ok := strings.Cut(place, "://"); ok {
		if i := strings.LastIndex(strings.TrimRight(rest, "/"), "/"); i > 0 {
			return scheme + "://" + rest[:i+1]
		}
		if strings.HasPrefix(rest, "/") { // hdfs:///x: the root is above it
			return scheme + ":///"
		}
		return scheme + "://"
	}
	if i := strings.LastIndex(strings.TrimRight(place, "/"), "/"); i > 0 {
		return place[:i+1]
	}
	return "."
}
