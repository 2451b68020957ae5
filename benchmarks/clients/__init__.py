"""What else a file of users can be sent with, each as its users would write it: FILE BASE_URL WORKERS."""
