"""What several tests share: engines, pages, models and hostile input."""
