// Package images gets images onto a node for its containers, and removes those that nobody uses when the disk fills.
//
// What flows through it: a pod's worker asks for an image by its pull policy ([Store.Ensure]) and gets what the runtime calls it, or a
// [lifecycle.StartError] with the reason that the container's status shows; logins come from the pod's imagePullSecrets. What must stay
// true: an image that a container or a volume of a pod uses is never removed (TestImagesThatPodsUseAreKept), and a pull with the wrong
// login is tried with the next (TestEveryLoginIsTried).
package images
