//go:build cluster

package clustertest

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	s3 "github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
	"github.com/minio/minio-go/v7/pkg/lifecycle"
	"github.com/stretchr/testify/require"

	"millrace/pkg/objectstore"
	"millrace/pkg/objectstore/faultproxy"
)

// bucketSite is a cluster on a MinIO whose buckets and keys a test makes odd.
type bucketSite struct {
	*cluster
	t     *testing.T
	store *storeProcess
	admin *s3.Client
	hook  func(faultproxy.Request) faultproxy.Fault
	mu    sync.Mutex
}

func startBucketSite(t *testing.T) *bucketSite {
	b := &bucketSite{t: t}
	b.store = startStore(t, "minio", func(r faultproxy.Request) faultproxy.Fault {
		b.mu.Lock()
		hook := b.hook
		b.mu.Unlock()
		if hook == nil {
			return faultproxy.Fault{}
		}
		return hook(r)
	})
	var err error
	b.admin, err = s3.New(b.store.address, &s3.Options{Creds: credentials.NewStaticV4(storeKey, storeSecret, "")})
	require.NoError(t, err)
	b.cluster = b.store.cluster("--core", "1", "--task", "0", "--slots", "2")
	require.NoError(t, b.store.direct.MakeBucket(t.Context(), "data"))
	b.store.put("data", "in/a", commitInput)
	b.store.put("data", "old/a", oldInput)
	return b
}

func (b *bucketSite) set(hook func(faultproxy.Request) faultproxy.Fault) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.hook = hook
}

// but gives flags with a key that may do all but these actions.
func (b *bucketSite) but(denied ...string) []string {
	b.t.Helper()
	policy := fmt.Sprintf(`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["s3:*"],"Resource":["arn:aws:s3:::*"]},
		{"Effect":"Deny","Action":["s3:%s"],"Resource":["arn:aws:s3:::*"]}]}`, strings.Join(denied, `","s3:`))
	role, err := credentials.NewSTSAssumeRole("http://"+b.store.address, credentials.STSAssumeRoleOptions{
		AccessKey: storeKey, SecretKey: storeSecret, Policy: policy, DurationSeconds: 900})
	require.NoError(b.t, err)
	key, err := role.GetWithContext(nil)
	require.NoError(b.t, err)
	return []string{"--s3", b.store.proxy.URL, "--s3-access-key", key.AccessKeyID, "--s3-secret-key", key.SecretAccessKey, "--s3-session-token", key.SessionToken}
}

// run submits a job and waits for its end.
func (b *bucketSite) run(args ...string) object {
	b.t.Helper()
	return b.waitJob(b.submit(args...))
}

// oldSet makes an output set at a prefix, with more parts than the jobs of these tests have.
func (b *bucketSite) oldSet(bucket, prefix string) {
	b.t.Helper()
	job := b.run("wordcount", "--input", "s3://data/old/", "--output", "s3://"+bucket+"/"+prefix, "--reduces", "4")
	require.Equal(b.t, "COMPLETED", job.str("state"), job)
}

// right checks that the output is the job's, and whole.
func (b *bucketSite) right(job object, bucket, prefix string) {
	b.t.Helper()
	require.Equal(b.t, "COMPLETED", job.str("state"), job)
	require.Zero(b.t, job.num("attempts", "failed"), job)
	m, lines := readOutput(b.t, b.cluster, bucket, prefix)
	require.Equal(b.t, job.str("id"), m.Job)
	slices.Sort(lines)
	require.Equal(b.t, commitKind{}.want(commitInput), lines)
}

// versions counts the versions of a key, delete markers too.
func (b *bucketSite) versions(bucket, key string) (n int) {
	b.t.Helper()
	for o := range b.admin.ListObjects(b.t.Context(), bucket, s3.ListObjectsOptions{Prefix: key, WithVersions: true, Recursive: true}) {
		require.NoError(b.t, o.Err)
		n++
	}
	return n
}

func wordcount(output string, more ...string) []string {
	return append([]string{"wordcount", "--reduces", "2", "--input", "s3://data/in/", "--output", output}, more...)
}

// TestOddBuckets: the output is right in a bucket of any kind, or the job fails clearly,
// with everything removed that it could remove and the rest named.
func TestOddBuckets(t *testing.T) {
	b := startBucketSite(t)
	ctx := context.Background()
	under := func(t *testing.T) *bucketSite { b.t, b.cluster.t, b.store.t = t, t, t; return b }

	t.Run("versioning", func(t *testing.T) {
		b := under(t)
		require.NoError(t, b.admin.MakeBucket(ctx, "versioned", s3.MakeBucketOptions{}))
		require.NoError(t, b.admin.EnableVersioning(ctx, "versioned"))
		b.right(b.run(wordcount("s3://versioned/plain/")...), "versioned", "plain/")
		b.oldSet("versioned", "o/")
		b.right(b.run(wordcount("s3://versioned/o/", "--overwrite")...), "versioned", "o/")
		require.Equal(t, 2, b.versions("versioned", "o/part-r-00000"), "the old part is kept, and the new one")
		require.Equal(t, 2, b.versions("versioned", "o/part-r-00003"), "the old part is kept, and that it was deleted")

		// Where there are delete markers only, there is nothing.
		b.mr("fs", "rm", "-r", "s3://versioned/o/")
		b.right(b.run(wordcount("s3://versioned/o/")...), "versioned", "o/")
	})
	t.Run("object lock", func(t *testing.T) {
		b := under(t)
		for _, mode := range []s3.RetentionMode{s3.Governance, s3.Compliance} {
			bucket := "locked-" + strings.ToLower(mode.String())
			require.NoError(t, b.admin.MakeBucket(ctx, bucket, s3.MakeBucketOptions{ObjectLocking: true}))
			days, unit := uint(1), s3.Days
			require.NoError(t, b.admin.SetBucketObjectLockConfig(ctx, bucket, &mode, &days, &unit))
			b.right(b.run(wordcount("s3://"+bucket+"/plain/")...), bucket, "plain/")
			b.oldSet(bucket, "o/")
			b.right(b.run(wordcount("s3://"+bucket+"/o/", "--overwrite")...), bucket, "o/")
			require.Equal(t, 2, b.versions(bucket, "o/part-r-00003"), "what is locked is kept")
		}
	})
	t.Run("lifecycle", func(t *testing.T) {
		b := under(t)
		require.NoError(t, b.admin.MakeBucket(ctx, "cycled", s3.MakeBucketOptions{}))
		rule := lifecycle.NewConfiguration()
		rule.Rules = []lifecycle.Rule{{ID: "uploads", Status: "Enabled", Expiration: lifecycle.Expiration{Days: 30},
			AbortIncompleteMultipartUpload: lifecycle.AbortIncompleteMultipartUpload{DaysAfterInitiation: 1}}}
		require.NoError(t, b.admin.SetBucketLifecycle(ctx, "cycled", rule))
		b.right(b.run(wordcount("s3://cycled/plain/")...), "cycled", "plain/")
	})
	t.Run("uploads that the store drops before the commit", func(t *testing.T) {
		b := under(t)
		b.dropUploadsAt(faultproxy.ListParts, "dropped/")
		b.right(b.run(wordcount("s3://data/dropped/")...), "data", "dropped/")
	})
	t.Run("uploads that the store drops while parts are written", func(t *testing.T) {
		b := under(t)
		b.dropUploadsAt(faultproxy.UploadPart, "late/")
		job := b.run(wordcount("s3://data/late/")...)
		require.Equal(t, "COMPLETED", job.str("state"), job)
		require.Zero(t, job.num("attempts", "failed"), "no fault of theirs: %v", job)
		_, lines := readOutput(t, b.cluster, "data", "late/")
		slices.Sort(lines)
		require.Equal(t, commitKind{}.want(commitInput), lines)
	})
	t.Run("no delete", func(t *testing.T) {
		b := under(t)
		key := b.but("DeleteObject")
		b.right(b.run(wordcount("s3://data/nd-plain/", key...)...), "data", "nd-plain/")

		b.oldSet("data", "nd-set/")
		before := contents(t, b.store, "nd-set/")
		job := b.run(wordcount("s3://data/nd-set/", append(key, "--overwrite")...)...)
		require.Equal(t, "FAILED", job.str("state"), job)
		require.Contains(t, job.str("reason"), "s3://data/nd-set/_SUCCESS")
		require.Contains(t, job.str("reason"), "access denied")
		require.Equal(t, before, contents(t, b.store, "nd-set/"), "the old set is whole")

		b.store.put("data", "nd-stale/part-r-00007", "stale")
		job = b.run(wordcount("s3://data/nd-stale/", append(key, "--overwrite")...)...)
		require.Equal(t, "FAILED", job.str("state"), job)
		for o, err := range b.store.direct.List(ctx, "data", "nd-stale/", objectstore.ListOptions{}) {
			require.NoError(t, err)
			require.NotContains(t, o.Key, "_SUCCESS")
			if o.Key != "nd-stale/part-r-00007" { // that was there before
				require.Contains(t, job.str("reason"), "s3://data/"+o.Key, "what is left is named")
			}
		}
	})
	t.Run("no abort", func(t *testing.T) {
		b := under(t)
		key := b.but("AbortMultipartUpload")
		b.right(b.run(wordcount("s3://data/na-plain/", key...)...), "data", "na-plain/")
		args := append([]string{"--mapper", "cat", "--reducer", "exit 3", "--max-attempts", "1", "--reduces", "1",
			"--input", "s3://data/in/", "--output", "s3://data/na-fails/"}, key...)
		job := b.run(args...)
		require.Equal(t, "FAILED", job.str("state"), job)
		require.Contains(t, job.str("reason"), "exited with code 3")
		require.Contains(t, job.str("reason"), "abort upload s3://data/na-fails/part-00000")
		require.Empty(t, contents(t, b.store, "na-fails/"))
	})
	t.Run("no list of parts", func(t *testing.T) {
		b := under(t)
		job := b.run(wordcount("s3://data/np/", b.but("ListMultipartUploadParts")...)...)
		require.Equal(t, "FAILED", job.str("state"), job)
		require.Contains(t, job.str("reason"), "commit: list parts s3://data/np/part-r-0000")
		require.Contains(t, job.str("reason"), "access denied")
		requireNothing(t, b.cluster, "data", "np/")
	})
	t.Run("no list of uploads", func(t *testing.T) { // which is needed after a leader's death only
		b := under(t)
		b.right(b.run(wordcount("s3://data/nu/", b.but("ListBucketMultipartUploads")...)...), "data", "nu/")
	})
	t.Run("no write", func(t *testing.T) {
		b := under(t)
		r := b.try(append([]string{"job", "submit"}, wordcount("s3://data/nw/", b.but("PutObject")...)...)...)
		require.Equal(t, 3, r.code, r.err)
		require.Contains(t, r.err, "output s3://data/nw/: access denied")
		require.Contains(t, r.err, "\nnext: ")
		requireNothing(t, b.cluster, "data", "nw/")
	})
	t.Run("no write from the middle of the job on", func(t *testing.T) {
		b := under(t)
		b.refuse(faultproxy.UploadPart, "nm/part-r-0") // and not what the submit asks for
		job := b.run(wordcount("s3://data/nm/")...)
		require.Equal(t, "FAILED", job.str("state"), job)
		require.Contains(t, job.str("reason"), "access denied")
		require.Contains(t, job.str("reason"), "s3://data/nm/part-r-0000")
		requireNothing(t, b.cluster, "data", "nm/")
	})
	t.Run("no _SUCCESS", func(t *testing.T) {
		b := under(t)
		b.refuse(faultproxy.Put, "ns/")
		job := b.run(wordcount("s3://data/ns/")...)
		require.Equal(t, "FAILED", job.str("state"), job)
		require.Contains(t, job.str("reason"), "s3://data/ns/_SUCCESS: access denied")
		requireNothing(t, b.cluster, "data", "ns/")
	})
	t.Run("no list", func(t *testing.T) {
		b := under(t)
		r := b.try(append([]string{"job", "submit"}, wordcount("s3://data/nl/", b.but("ListBucket")...)...)...)
		require.Equal(t, 3, r.code, r.err)
		require.Contains(t, r.err, "access denied")
		require.Contains(t, r.err, "\nnext: ")
		requireNothing(t, b.cluster, "data", "nl/")
	})
}

// refuse has the store deny requests of a kind below a prefix, until the test's end.
func (b *bucketSite) refuse(op faultproxy.Op, prefix string) {
	b.set(func(r faultproxy.Request) faultproxy.Fault {
		if r.Op != op || !strings.HasPrefix(r.Key, prefix) {
			return faultproxy.Fault{}
		}
		return faultproxy.Fault{Status: http.StatusForbidden, Code: "AccessDenied"}
	})
	b.t.Cleanup(func() { b.set(nil) })
}

// dropUploadsAt aborts all uploads below a prefix behind the leader's back, when the first such request is made.
func (b *bucketSite) dropUploadsAt(op faultproxy.Op, prefix string) {
	var once sync.Once
	b.set(func(r faultproxy.Request) faultproxy.Fault {
		if r.Op != op || !strings.HasPrefix(r.Key, prefix) {
			return faultproxy.Fault{}
		}
		return faultproxy.Fault{Before: func(ctx context.Context) (err error) {
			once.Do(func() {
				for i := range 2 {
					key := fmt.Sprintf("%spart-r-%05d", prefix, i)
					var open []objectstore.Upload
					if open, err = b.store.direct.ListUploads(ctx, "data", key); err != nil {
						return
					}
					for _, u := range open {
						if err = b.store.direct.AbortUpload(ctx, "data", key, u.ID); err != nil {
							return
						}
					}
				}
			})
			return err
		}}
	})
	b.t.Cleanup(func() { b.set(nil) })
}
