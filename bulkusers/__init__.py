"""Create and update a school's users in Coursedog from a CSV file."""
